// websocket_h2.mjs HOST SCENARIO [NAME=VALUE...]: WebSockets over HTTP/2 (RFC 8441) by Node's own client, unconfigured. Says
// what came back, a line of JSON each.
import { once } from "node:events";
import http2 from "node:http2";
import { randomBytes } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import zlib from "node:zlib";

const [host, scenario, ...rest] = process.argv.slice(2);
const extra = Object.fromEntries(rest.map((header) => header.split(/=(.*)/s, 2)));
const tell = (facts) => console.log(JSON.stringify(facts));

function frame(opcode, payload) {
  const mask = randomBytes(4);
  const size =
    payload.length < 126 ? [0x80 | payload.length]
    : payload.length < 65536 ? [0x80 | 126, payload.length >> 8, payload.length & 255]
    : [0x80 | 127, 0, 0, 0, 0, ...[24, 16, 8, 0].map((by) => (payload.length >>> by) & 255)];
  return Buffer.concat([Buffer.from([0x80 | opcode, ...size]), mask, payload.map((byte, at) => byte ^ mask[at % 4])]);
}

// The frames of a stream, one after another; null when it has ended.
class Frames {
  constructor(stream) {
    this.pieces = stream[Symbol.asyncIterator]();
    this.held = Buffer.alloc(0);
  }
  async take(length) {
    while (this.held.length < length) {
      const { value, done } = await this.pieces.next();
      if (done) return null;
      this.held = Buffer.concat([this.held, value]);
    }
    const taken = this.held.subarray(0, length);
    this.held = this.held.subarray(length);
    return taken;
  }
  async next() {
    const head = await this.take(2);
    if (head === null) return null;
    let length = head[1] & 127;
    if (length === 126) length = (await this.take(2)).readUInt16BE();
    else if (length === 127) length = Number((await this.take(8)).readBigUInt64BE());
    let payload = await this.take(length);
    if (payload === null) return null;
    // RFC 7692 §7.2.2
    if (head[0] & 0x40) {
      const whole = Buffer.concat([payload, Buffer.from([0, 0, 255, 255])]);
      payload = zlib.inflateRawSync(whole, { finishFlush: zlib.constants.Z_SYNC_FLUSH });
    }
    return { opcode: head[0] & 15, deflated: (head[0] & 0x40) !== 0, payload };
  }
}

// A window that is never opened, if it is to read nothing.
const settings = scenario === "unread" ? { initialWindowSize: 0 } : {};
const session = http2.connect(`https://${host}`, { settings });
session.on("error", (error) => tell({ session: error.code ?? error.message }));
session.on("goaway", (code) => tell({ goaway: code }));
await once(session, "remoteSettings");
tell({ enabled: session.remoteSettings.enableConnectProtocol });

function open(path, more = {}) {
  const stream = session.request({
    ":method": "CONNECT", ":protocol": "websocket", ":path": path, "sec-websocket-version": "13",
    ...extra, ...more,
  });
  stream.on("close", () => tell({ closed: path, code: stream.rstCode }));
  return watched(stream);
}

function watched(stream) {
  stream.failed = new Promise((resolve) => stream.on("error", resolve));
  return stream;
}

// The head of the answer, or the failure.
const answer = async (stream) =>
  Promise.race([once(stream, "response").then(([head]) => head), stream.failed.then((error) => ({ failed: error.code }))]);

async function told(path, more) {
  const stream = open(path, more);
  const head = await answer(stream);
  let body = "";
  stream.setEncoding("utf8");
  for await (const piece of stream) body += piece;
  tell({ path, status: head[":status"], failed: head.failed, body });
}

async function get(path) {
  const stream = watched(session.request({ ":path": path }));
  const head = await answer(stream);
  stream.resume();
  tell({ get: path, status: head[":status"] });
}

async function opened(path, more) {
  const stream = open(path, more);
  const head = await answer(stream);
  tell({ path, status: head[":status"], protocol: head["sec-websocket-protocol"] });
  return [stream, new Frames(stream)];
}

const scenarios = {
  async talk() {
    const stream = open("/ws?x=1", {
      "sec-websocket-protocol": "other, chat",
      "sec-websocket-extensions": "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
      cookie: ["a=1", "b=2"],
    });
    // Nobody has agreed yet.
    stream.write(frame(1, Buffer.from("early")));
    const head = await answer(stream);
    const names = Object.keys(head).filter((name) => /^(sec-|connection|upgrade|content-length|transfer)/.test(name)).sort();
    tell({ status: head[":status"], protocol: head["sec-websocket-protocol"], extensions: head["sec-websocket-extensions"], names });
    const frames = new Frames(stream);
    tell({ early: String((await frames.next()).payload) });
    for (const length of [5, 1000, 65536, 3_000_000]) {
      const payload = randomBytes(length);
      stream.write(frame(2, payload));
      const back = await frames.next();
      tell({ sent: length, same: back.payload.equals(payload), deflated: back.deflated });
    }
    // Another request goes on beside it.
    await get("/refused");
    // Both sides silent for a while: an idle socket stays open.
    await pause(1000);
    stream.write(frame(9, Buffer.from("still there?")));
    const pong = await frames.next();
    tell({ pong: pong.opcode === 10 && String(pong.payload) === "still there?" });
    stream.write(frame(8, Buffer.from([3, 232])));
    const close = await frames.next();
    const end = await frames.next();
    stream.end();
    tell({ close: close.opcode === 8, end: end === null });
    await once(stream, "close");
  },
  // Gone with its connection, without a word, once all has been said.
  async left() {
    const [stream, frames] = await opened("/ws");
    stream.write(frame(8, Buffer.from([3, 232])));
    const close = await frames.next();
    tell({ close: close.opcode === 8, end: (await frames.next()) === null });
    session.destroy();
  },
  async refused() {
    for (const path of ["/refused", "/plain", "/liar"]) await told(path);
    await told("/ws", { ":protocol": "connect-udp" });
    // By its own name, though its connection is for another.
    await told("/ws", { ":authority": "other.test" });
    await get("/refused");
  },
  async denied() {
    await told("/denied");
    await told("/allowed/../x");
    const [stream] = await opened("/allowed/ws");
    stream.end(frame(8, Buffer.from([3, 232])));
    stream.resume();
    await once(stream, "close");
  },
  async reset() {
    const [stream, frames] = await opened("/ws");
    stream.write(frame(1, Buffer.from("hello")));
    tell({ back: String((await frames.next()).payload) });
    stream.close(http2.constants.NGHTTP2_CANCEL);
    await once(stream, "close");
    const [silent] = await opened("/silent");
    silent.write(frame(1, Buffer.from("hello")));
    silent.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
    await pause(1500);
    await get("/refused");
  },
  async vanish() {
    const [stream, frames] = await opened("/vanish");
    const begun = Date.now();
    stream.write(frame(1, Buffer.from("hello")));
    const next = await Promise.race([frames.next(), stream.failed.then(() => null)]);
    stream.end();
    tell({ ended: next === null, soon: Date.now() - begun < 10_000 });
    if (!stream.closed) await once(stream, "close");
  },
  // For a policy that changes, and for a gateway that ends.
  async linger() {
    const [stream, frames] = await opened("/ws");
    stream.write(frame(1, Buffer.from("hello")));
    tell({ back: String((await frames.next()).payload) });
    tell({ lingering: true });
    const next = await Promise.race([frames.next(), stream.failed.then(() => null)]);
    tell({ ended: next === null });
    stream.end();
  },
  // What comes back is never taken, and both sides are done with it.
  async unread() {
    const stream = open("/ws");
    await answer(stream);
    stream.write(frame(2, randomBytes(1000)));
    const begun = Date.now();
    const gone = await Promise.race([once(session, "close").then(() => true), pause(20_000, false)]);
    tell({ gone, after: Date.now() - begun });
    if (!gone) session.destroy();
  },
  async keyed() {
    const [stream] = await opened("/ws", { "sec-websocket-protocol": "openai-insecure-api-key.mine, chat" });
    stream.end(frame(8, Buffer.from([3, 232])));
    stream.resume();
    await once(stream, "close");
  },
  async missing() {
    await told("/ws");
  },
};
await scenarios[scenario]();
if (!session.destroyed) session.close();
