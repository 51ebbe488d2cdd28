// goaway.mjs HOST PATH: asks once over HTTP/2, by Node's own client, and says what came, GOAWAY included, in its order.
import http2 from "node:http2";

const [host, path] = process.argv.slice(2);
const tell = (facts) => console.log(JSON.stringify(facts));
const session = http2.connect(`https://${host}`);
session.on("error", (error) => tell({ error: error.code }));
session.on("goaway", (code) => tell({ goaway: code }));
const stream = session.request({ ":path": path });
stream.on("error", (error) => tell({ failed: error.code }));
let status;
stream.on("response", (head) => (status = head[":status"]));
let body = "";
stream.setEncoding("utf8");
for await (const piece of stream) body += piece;
tell({ status, body });
session.close();
