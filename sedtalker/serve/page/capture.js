// Microphone samples as 16-bit integers, in pieces of 30 ms: the server animates steps of this length, so that a
// piece never waits for the next one. The first piece is longer, because the server's resampler holds back a little.
"use strict";

const PIECE = 0.03; // s
const FIRST = 0.002; // s, by which the first piece is longer

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
    this.end = Math.round((FIRST + PIECE * ++this.pieces) * sampleRate);
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
