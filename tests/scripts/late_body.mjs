// late_body.mjs URL: posts over HTTP/2, by Node's own client, a body that is sent only when the answer has come; says what
// came, and how the stream stood when the body was sent.
import http2 from "node:http2";

const url = new URL(process.argv[2]);
const session = http2.connect(url.origin);
session.on("error", (error) => console.log(JSON.stringify({ error: error.code })));
const stream = session.request({ ":path": url.pathname, ":method": "POST" }, { endStream: false });
let status;
stream.on("response", (head) => (status = head[":status"]));
let body = "";
stream.setEncoding("utf8");
stream.on("data", (piece) => (body += piece));
stream.on("end", () =>
  // What comes right behind the answer has been heard by then.
  setTimeout(() => {
    const open = !stream.closed && !stream.destroyed;
    if (open) stream.end("{}");
    stream.on("close", () => session.close());
    if (!open) session.close();
    console.log(JSON.stringify({ status, reason: JSON.parse(body).reason, open }));
  }, 50),
);
