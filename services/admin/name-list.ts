import { Readable } from 'node:stream';

async function* jsonArray(pages: AsyncIterable<readonly string[]>): AsyncGenerator<string, void, undefined> {
  let before = '[';
  for await (const page of pages) {
    if (page.length === 0) continue;
    yield before + JSON.stringify(page).slice(1, -1);
    before = ',';
  }
  yield before === '[' ? '[]' : ']';
}

/** Names as a JSON array that is sent as the pages come, so that a long list holds nobody up. */
export function nameList(pages: AsyncIterable<readonly string[]>): Readable {
  return Readable.from(jsonArray(pages), { objectMode: false });
}
