// A receiver of Sequin-shaped messages in plain Node: bearer, Standard Webhooks signature, log.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const bearer = process.env.SEQUIN_WEBHOOK_SECRET;
const key = Buffer.from(process.env.SIGNING_SECRET.replace("whsec_", ""), "base64");

function isSigned(headers, body) {
  const signed = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`;
  const wanted = createHmac("sha256", key).update(signed).digest();
  const isFresh = Math.abs(Date.now() / 1000 - Number(headers["webhook-timestamp"])) < 300;
  return isFresh && headers["webhook-signature"].split(" ").some((given) => {
    const bytes = Buffer.from(given.replace("v1,", ""), "base64");
    return bytes.length === wanted.length && timingSafeEqual(bytes, wanted);
  });
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString();
  const isWelcome = request.headers.authorization === `Bearer ${bearer}` && isSigned(request.headers, body);
  const parsed = JSON.parse(body);
  for (const message of parsed.data ?? [parsed]) {
    console.log(JSON.stringify({ isWelcome, path: request.url, message }));
  }
  response.writeHead(isWelcome ? 200 : 401, { "content-type": "application/json" });
  response.end("{}");
});
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
