// A client of the native protocol of `audiossm serve`, which goes on after any loss. No build step:
//
//   const stream = new Stream({ url: streamAddress(location), start: { sample_rate: 48000 } });
//   stream.onreply = (reply) => ...;   // each event once, whatever gets lost on the way
//   stream.send(samples);              // Int16Array, mono, in the stream's rate
//   stream.finish();
//
// `Protocol` is the same without a socket, and `Transcript` puts replies together to a text.

const SEEN_EVERY = 16; // events
const MAX_MESSAGE = 16000; // samples
const EVENTS = new Set([
  "word", "written", "endpoint", "flushed", "hotwords_set", "rewound", "refused", "finished",
]);
// what another try may help against
const PASSING = new Set(["full", "going", "failed", "idle"]);
const FIRST_PAUSE_S = 0.1;
const LONGEST_PAUSE_S = 2;

/** Nothing that a server says, or a stream that can't go on; its message is for a person. */
export class StreamError extends Error {}

/** Return the address of the native protocol beside a page: of `location`, or a URL. */
export function streamAddress(page) {
  const url = new URL("v1/stream", page.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

/**
 * Keeps what a server may lose, and hands on each event once.
 *
 * Call `connected` with each new connection; put what the server says into `receive` and send what
 * `outgoing` returns after any call. Audio goes out as far as the server's credit reaches.
 */
export class Protocol {
  /** start: the fields of the message `start`; the encoding is always s16. */
  constructor(start = {}) {
    this.start = { type: "start", version: 1, sample_rate: 16000, ...start, encoding: "s16" };
    this.handle = null; // to resume the stream by
    this.seq = 0; // of the newest event that was handed on
    this.durable = this.durableControls = 0; // what needn't be kept
    this.taken = this.controls = 0; // what the caller has put in
    this.finished = this.finishing = false;
    this.log = []; // {start, controls, audio | control}: samples and controls before it
    this.next = null; // index of the log; null before the server is ready
    this.limit = 0; // samples that the server takes
    this.out = [];
    this.seen = 0;
  }

  /** Samples that a server may still lose. */
  get kept() {
    return this.log.reduce((sum, entry) => sum + (entry.audio?.length ?? 0), 0);
  }

  /** Samples that aren't sent yet. */
  get waiting() {
    if (this.next === null) return this.taken - this.durable;
    return this.next === this.log.length ? 0 : this.taken - this.log[this.next].start;
  }

  /** Begin with a new connection; what was said on the one before may be lost. */
  connected() {
    this.next = null;
    const { encoding, partials = true } = this.start;
    const { handle, seq } = this;
    const resume = { type: "resume", version: 1, handle, seq, encoding, partials };
    this.out = [JSON.stringify(handle === null ? this.start : resume)];
  }

  /** Take samples (Int16Array) in the stream's rate; they are not copied. */
  sendAudio(samples) {
    this.#checkOpen();
    for (let at = 0; at < samples.length; at += MAX_MESSAGE) {
      const audio = samples.subarray(at, at + MAX_MESSAGE);
      this.log.push({ start: this.taken, controls: this.controls, audio });
      this.taken += audio.length;
    }
  }

  /** Ask for something that is counted: `flush`, `hotwords`, `rewind`, with its fields. */
  control(type, fields = {}) {
    this.#checkOpen();
    this.log.push({ start: this.taken, controls: this.controls, control: { type, ...fields } });
    this.controls += 1;
  }

  /** Say that no more comes. */
  finish() {
    this.control("finish");
    this.finishing = true;
  }

  /** Take what the server says; return it, or null if it is not new. */
  receive(text) {
    const reply = JSON.parse(text);
    switch (reply.type) {
      case "started":
        this.handle = reply.handle;
        this.#goOn(0, 0, reply.credit);
        break;
      case "resumed":
        this.#goOn(reply.received, reply.controls, reply.credit);
        break;
      case "ack":
        this.limit = reply.received + reply.credit;
        this.#trim(reply.durable, reply.controls);
        break;
      case "error":
        if (reply.code === "unknown" && this.durable === 0 && this.durableControls === 0) {
          // all that was ever sent is still here: begin anew, to the same events
          this.handle = null;
          return null;
        }
    }
    if (EVENTS.has(reply.type)) {
      if (reply.seq <= this.seq) return null;
      if (reply.seq !== this.seq + 1) {
        throw new StreamError(`event ${reply.seq} came after event ${this.seq}`);
      }
      this.seq = reply.seq;
      this.finished = reply.type === "finished";
      if (this.finished || this.seq - this.seen >= SEEN_EVERY) {
        this.seen = this.seq;
        this.out.push(JSON.stringify({ type: "seen", seq: this.seq }));
      }
    }
    return reply;
  }

  /** Return what to send now, strings and Int16Arrays; it counts as sent. */
  outgoing() {
    const out = this.out;
    this.out = [];
    while (this.next !== null && this.next < this.log.length) {
      const { start, audio, control } = this.log[this.next];
      if (audio) {
        if (start >= this.limit) break;
        if (start + audio.length > this.limit) this.#split(this.next, this.limit - start);
        out.push(this.log[this.next].audio);
      } else {
        out.push(JSON.stringify(control));
      }
      this.next += 1;
    }
    return out;
  }

  #checkOpen() {
    if (this.finishing) throw new StreamError("the stream is finished: nothing may follow");
  }

  /** Send again what the server doesn't have. */
  #goOn(received, controls, credit) {
    this.limit = received + credit;
    if (received < this.durable || controls < this.durableControls) {
      throw new StreamError("the server stands before what it called durable");
    }
    const lacks = (entry) =>
      entry.audio ? entry.start + entry.audio.length > received : entry.controls >= controls;
    const number = this.log.findIndex(lacks);
    this.next = number < 0 ? this.log.length : number;
    const entry = this.log[this.next];
    if (entry?.audio && entry.start < received) {
      this.#split(this.next, received - entry.start);
      this.next += 1;
    }
  }

  #split(number, samples) {
    const { start, controls, audio } = this.log[number];
    const first = { start, controls, audio: audio.subarray(0, samples) };
    const rest = { start: start + samples, controls, audio: audio.subarray(samples) };
    this.log.splice(number, 1, first, rest);
  }

  /** Forget what the server will not lose. */
  #trim(durable, controls) {
    this.durable = Math.max(this.durable, durable);
    this.durableControls = Math.max(this.durableControls, controls);
    const kept = (entry) =>
      entry.audio
        ? entry.start + entry.audio.length > this.durable
        : entry.controls >= this.durableControls;
    const first = this.log.findIndex(kept);
    const size = Math.min(first < 0 ? this.log.length : first, this.next ?? this.log.length);
    this.log.splice(0, size);
    if (this.next !== null) this.next -= size;
  }
}

/**
 * A stream of audio to a server, over as many connections as it takes.
 *
 * Set `onreply` (what the server says, each event once) and `onstate`, which gets one of
 * "connecting", "live", "waiting" (for another try), "finished", "failed", and why. `reconnects`
 * counts how often the stream was resumed.
 */
export class Stream {
  #socket = null;
  #pause = FIRST_PAUSE_S;
  #lost = Date.now(); // since when nobody answers
  #heard = Date.now();
  #retry = 0;
  #reason = "";
  #timer = null;
  #watch = null;

  constructor({ url, key = "", start = {}, firstTriesS = 5, giveUpS = 120, silenceS = 20 }) {
    this.url = url;
    this.key = key;
    this.firstTriesS = firstTriesS; // who was never let in gives up sooner
    this.giveUpS = giveUpS;
    this.silenceS = silenceS; // a connection with audio on its way that says nothing is dead
    this.protocol = new Protocol(start);
    this.reconnects = 0;
    this.state = "new";
    this.onreply = () => {};
    this.onstate = () => {};
  }

  open() {
    this.#lost = Date.now();
    this.#watch = setInterval(() => this.#checkSilence(), 1000);
    this.#connect();
  }

  send(samples) {
    this.protocol.sendAudio(samples);
    this.#push();
  }

  setHotwords(hotwords) {
    this.protocol.control("hotwords", { hotwords });
    this.#push();
  }

  flush() {
    this.protocol.control("flush");
    this.#push();
  }

  finish() {
    this.protocol.finish();
    this.#push();
  }

  /** Cut the connection, as a bad network does; the stream goes on over another one. */
  cut(seconds = 0) {
    this.#retry = seconds;
    this.#reason = "the connection was cut";
    this.#socket?.close();
    this.#ended();
  }

  /** Give the stream up. */
  abandon(reason = "given up", state = "failed") {
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    this.#tell(state, reason);
  }

  #tell(state, reason = "") {
    this.state = state;
    this.onstate(state, reason);
  }

  #connect() {
    const { protocol } = this;
    const url = new URL(this.url);
    if (protocol.handle !== null) url.searchParams.set("resume", "");
    // a browser can send no other header with a websocket, and an address is not logged
    if (this.key) url.searchParams.set("api_key", this.key);
    if (this.state !== "waiting") this.#tell("connecting");
    const socket = new WebSocket(url);
    this.#socket = socket;
    this.#heard = Date.now();
    socket.onopen = () => {
      if (socket !== this.#socket) return;
      protocol.connected();
      this.#push();
    };
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#receive(data);
    };
    socket.onclose = () => {
      if (socket === this.#socket) this.#ended();
    };
  }

  #receive(data) {
    this.#heard = Date.now();
    let reply;
    try {
      reply = this.protocol.receive(data);
    } catch (error) {
      this.abandon(error.message);
      return;
    }
    if (reply?.type === "error") {
      this.#reason = reply.message;
      this.#retry = reply.retry_s ?? 0;
      if (!PASSING.has(reply.code)) this.abandon(reply.message);
      return;
    }
    if (reply?.type === "started" || reply?.type === "resumed") {
      this.#pause = FIRST_PAUSE_S;
      this.#lost = null;
      this.#reason = "";
      this.#retry = 0;
      if (reply.type === "resumed") this.reconnects += 1;
      this.#tell("live");
    }
    if (reply) this.onreply(reply);
    this.#push();
    if (this.protocol.finished) this.abandon("", "finished");
  }

  /** Send what may be sent; what gets lost is sent again later. */
  #push() {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    for (const message of this.protocol.outgoing()) this.#socket.send(message);
  }

  #checkSilence() {
    const { taken, durable } = this.protocol;
    if (taken === durable) this.#heard = Date.now();
    const isOpen = this.#socket !== null && this.state === "live";
    if (isOpen && Date.now() - this.#heard > this.silenceS * 1000) this.cut();
  }

  #ended() {
    if (this.#socket === null) return;
    this.#socket = null;
    this.#lost ??= Date.now();
    const reason = this.#reason || "the server can't be reached, or doesn't let us in";
    const patience = this.protocol.handle === null ? this.firstTriesS : this.giveUpS;
    if (Date.now() - this.#lost > patience * 1000) {
      this.abandon(reason);
      return;
    }
    // a little chance, so that not everybody comes back in one moment
    const pause = Math.max(this.#retry, this.#pause) * (0.7 + 0.6 * Math.random());
    this.#pause = Math.min(LONGEST_PAUSE_S, 2 * this.#pause);
    this.#tell("waiting", reason);
    this.#timer = setTimeout(() => this.#connect(), pause * 1000);
  }
}

/**
 * The text of a stream, as far as it is known.
 *
 * `finals` will not change; `pending` are words that are sure, but not yet as they are written;
 * `partial` may still change. A server that writes no text tells plain words alone, which are final.
 */
export class Transcript {
  finals = [];
  pending = [];
  partial = "";
  begins = false; // whether the words that `add` returned last are the first ones after a pause
  #writes = null; // not known yet
  #paused = false;

  /** Take a reply; return the words that became final by it. */
  add(reply) {
    const words = this.#take(reply);
    // an endpoint's own words are before it
    this.begins = this.#paused && words.length > 0 && reply.type !== "endpoint";
    if (words.length) this.#paused = false;
    if (reply.type === "endpoint" && reply.rule !== "length") this.#paused = true;
    return words;
  }

  #take(reply) {
    const before = this.finals.length;
    switch (reply.type) {
      case "partial":
        // who writes begins a partial text with the words that aren't written yet
        if (this.#writes === null && this.pending.length) {
          if (!begins(reply.text.trim(), this.pending.join(" "))) this.#settle();
        }
        this.partial = reply.text.trim();
        break;
      case "word":
        this.pending.push(reply.word);
        if (this.#writes === false) this.#settle();
        else if (!begins(this.partial, this.pending.join(" "))) this.partial = "";
        break;
      case "written":
        this.#writes = true;
        this.pending.splice(0, reply.word.split(" ").length);
        if (begins(this.partial, reply.word)) {
          this.partial = this.partial.slice(reply.word.length + 1);
        }
        this.finals.push(reply.text);
        break;
      case "endpoint":
        // all its words were told, and written where anything writes them
        if (this.pending.length) this.#settle();
        break;
      case "finished":
        this.#settle();
    }
    return this.finals.slice(before);
  }

  /** What is grey: all that was heard after the finals. */
  get tail() {
    const sure = this.pending.join(" ");
    return begins(this.partial, sure) ? this.partial : `${sure} ${this.partial}`.trim();
  }

  /** Take the words as they are: nothing writes them. */
  #settle() {
    this.#writes ??= false;
    this.finals.push(...this.pending);
    this.pending = [];
    this.partial = "";
  }
}

function begins(text, words) {
  return words === "" || text === words || text.startsWith(`${words} `);
}
