// Serves the route of a Next.js app at the path of its folder, as `next dev` does.
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const path = "/api/create-embedding-for-post";
const { POST } = await import(pathToFileURL(`${process.cwd()}/app${path}/route.ts`).href);

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const given = { method: request.method, headers: request.headers, body: Buffer.concat(chunks) };
  const answer = request.url === path && request.method === "POST"
    ? await POST(new Request(`http://localhost${path}`, given))
    : new Response("{}", { status: 404 });
  response.writeHead(answer.status, Object.fromEntries(answer.headers));
  response.end(await answer.text());
});
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
