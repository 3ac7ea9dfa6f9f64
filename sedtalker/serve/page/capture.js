// Microphone samples as 16-bit integers, in pieces of 40 ms: the server animates two frames at once, and a piece ends
// when they are complete. The first piece is shorter: it ends with the server's first step, 32.5 ms, and 2 ms later,
// because the server's resampler holds back a little.
"use strict";

const PIECE = 0.04; // s
const FIRST = 0.0345; // s

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.port.onmessage = () => this.restart(); // an utterance begins
    this.restart();
  }

  restart() {
    this.pieces = 0;
    this.end = 0; // of the last piece, in samples
    this.begin();
  }

  begin() {
    const start = this.end;
    this.end = Math.round((FIRST + PIECE * this.pieces++) * sampleRate);
    this.piece = new Int16Array(this.end - start);
    this.count = 0;
  }

  process([input]) {
    const samples = input[0];
    if (!samples) return true;
    for (const sample of samples) {
      this.piece[this.count++] = Math.max(-1, Math.min(1, sample)) * 32767;
      if (this.count < this.piece.length) continue;
      this.port.postMessage(this.piece.buffer, [this.piece.buffer]);
      this.begin();
    }
    return true;
  }
}

registerProcessor("capture", Capture);
