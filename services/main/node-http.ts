import { request } from 'node:http';
import type { HttpRequest, HttpResponse } from '../cli/http.ts';

/** More is not taken of an answer. */
const MOST_BYTES = 268_435_456;

/** One request, on a connection of its own. Rejects with the platform's error; ETIMEDOUT when it takes too long. */
export async function nodeHttp({ method, url, body, timeoutMs }: HttpRequest): Promise<HttpResponse> {
  return await new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
    const call = request(url, { method, headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        bytes += chunk.length;
        if (bytes > MOST_BYTES) call.destroy(new Error(`the answer has more than ${MOST_BYTES} bytes`));
      });
      response.once('error', reject);
      response.once('end', () => {
        clearTimeout(timer);
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) });
      });
    });
    const timer = setTimeout(() => {
      call.destroy(Object.assign(new Error(`there was no answer within ${timeoutMs} ms`), { code: 'ETIMEDOUT' }));
    }, timeoutMs);
    call.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    call.end(body);
  });
}
