/** How admin commands print: tables for people, JSON for programs. */
import Table from 'cli-table3';
import type { Shell } from './shell.ts';

export type OutputFormat = 'text' | 'json';

type Cell = string | number;

/** On a terminal a table with borders; elsewhere lines of cells with tabs between them. Both begin with the heads. */
export function tableText(shell: Shell, heads: readonly string[], rows: readonly (readonly Cell[])[]): string {
  if (!shell.stdoutIsTerminal) {
    const plain = (cell: Cell): string => String(cell).replaceAll(/[\t\r\n]+/g, ' ');
    return [heads, ...rows].map((row) => `${row.map(plain).join('\t')}\n`).join('');
  }
  const table = new Table({ head: [...heads], style: { head: [], border: [], compact: true } });
  for (const row of rows) table.push([...row]);
  return `${table.toString()}\n`;
}

/** A value as one line of JSON. */
export function jsonText(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}

/** A number of something per second. */
export function rateText(rate: number): string {
  return rate === 0 || rate >= 100 ? rate.toFixed(0) : rate.toPrecision(2);
}
