// Microphone samples as 16-bit integers, in pieces of about 20 ms.
"use strict";

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(sampleRate / 50);
    this.piece = new Int16Array(this.size);
    this.count = 0;
  }

  process([input]) {
    const samples = input[0];
    if (!samples) return true;
    for (const sample of samples) {
      this.piece[this.count++] = Math.max(-1, Math.min(1, sample)) * 32767;
      if (this.count === this.size) {
        this.port.postMessage(this.piece.buffer, [this.piece.buffer]);
        this.piece = new Int16Array(this.size);
        this.count = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
