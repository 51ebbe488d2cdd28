// no_window.mjs URL LIMIT: asks over HTTP/2, by Node's own client, with no window for an answer's body, and says whether the
// connection was over before LIMIT seconds had passed, and after how many.
import http2 from "node:http2";

const url = new URL(process.argv[2]);
const begun = Date.now();
const tell = (closed) => {
  console.log(JSON.stringify({ status, closed, after: (Date.now() - begun) / 1000 }));
  process.exit();
};
const session = http2.connect(url.origin, { settings: { initialWindowSize: 0 } });
session.on("error", () => {});
session.on("close", () => tell(true));
setTimeout(() => tell(false), 1000 * Number(process.argv[3]));
const stream = session.request({ ":path": url.pathname });
stream.on("error", () => {});
let status;
stream.on("response", (head) => (status = head[":status"]));
stream.resume();
