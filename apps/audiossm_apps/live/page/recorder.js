// Runs on the browser's audio thread: channels averaged, 16 bits, in pieces of about 40 ms.

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(sampleRate * 0.04);
    this.samples = new Int16Array(this.size);
    this.length = 0;
    this.peak = 0;
    this.going = true;
    this.port.onmessage = () => {
      this.hand();
      this.going = false;
      this.port.postMessage(null); // nothing follows
    };
  }

  process([channels]) {
    if (!this.going) return false; // it is called on as long as it is connected
    for (let at = 0; at < (channels[0]?.length ?? 0); at++) {
      let sum = 0;
      for (const channel of channels) sum += channel[at];
      const value = sum / channels.length;
      this.peak = Math.max(this.peak, Math.abs(value));
      this.samples[this.length++] = Math.max(-32768, Math.min(32767, Math.round(value * 32768)));
      if (this.length === this.size) this.hand();
    }
    return true;
  }

  hand() {
    const samples = this.samples.slice(0, this.length);
    this.port.postMessage({ samples, peak: this.peak }, [samples.buffer]);
    this.length = this.peak = 0;
  }
}

registerProcessor("recorder", Recorder);
