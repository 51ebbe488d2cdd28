// fetch.mjs URL [NAME=VALUE...]: fetches URL by Node's own fetch, unconfigured.
const [url, ...rest] = process.argv.slice(2);
const headers = Object.fromEntries(rest.map((header) => header.split(/=(.*)/s, 2)));
const answer = await fetch(url, { headers });
console.log(JSON.stringify({ status: answer.status, body: await answer.text() }));
