/** What `magnetar inspect` prints. */
import path from 'node:path';
import Table from 'cli-table3';
import type { BookieReport, LedgerReport } from '../bookie/inspect.ts';
import { type Damage, damageText, isHarmless } from '../bookie/damage.ts';
import { bytesText, countText } from '../cli/text.ts';
import { type FolderReport, type InspectedTopic, isHealthy } from './folder-report.ts';

const PLAIN = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '  ',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '  ',
} as const;
const NAMED_TOPICS = 5;

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const style = { head: [], border: [], 'padding-left': 0, 'padding-right': 0 };
  const made = new Table({ head: [...head], chars: PLAIN, style });
  for (const row of rows) made.push([...row]);
  return made
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

function counted(count: number, one: string, many = `${one}s`): string {
  return `${countText(count)} ${count === 1 ? one : many}`;
}

/** How many different entries; the ranges are in order of their first ones. */
function entriesOf({ ranges }: LedgerReport): number {
  let [count, next] = [0, 0];
  for (const { firstEntryId, lastEntryId } of ranges) {
    count += Math.max(0, lastEntryId + 1 - Math.max(next, firstEntryId));
    next = Math.max(next, lastEntryId + 1);
  }
  return count;
}

/** What is to be done about a damage. */
function advice(damage: Damage): string {
  if (isHarmless(damage)) return 'nothing: what is damaged follows from the rest, and is written anew or never needed';
  const once =
    'the bookie starts and serves everything else; what it has lost is read from other copies, where there are any';
  if (damage.what === 'missing')
    return `put the file back, from where it was moved to or from a backup; until then ${once}`;
  if (damage.what === 'foreign') return `put the right file back; until then ${once}`;
  if (damage.what === 'stale') return `put the newest copy of the file back; until then ${once}`;
  if (damage.what === 'unreadable') return `check the disk; ${once}`;
  return once;
}

/** Names of the topics that a damage may concern. */
function topicsOf(damage: Damage, topics: readonly InspectedTopic[]): string[] {
  const { ledgers, ledgersUpTo } = damage;
  const hit = (ids: InspectedTopic['ledgers']): boolean =>
    ids.some((id) => (ledgers === 'unknown' ? id <= ledgersUpTo : ledgers.some(({ ledgerId }) => ledgerId === id)));
  return topics.flatMap(({ topic, ledgers: own, ackLedgers }) => [
    ...(hit(own) ? [topic] : []),
    ...(hit(ackLedgers) ? [`the acknowledgments of ${topic}`] : []),
  ]);
}

function damageLines(report: FolderReport): string[] {
  const lines: string[] = [];
  const topics = report.metadata?.topics ?? [];
  for (const damage of report.bookies.flatMap(({ damages }) => damages)) {
    lines.push(`  ${damage.file} ${damageText(damage)}`);
    const named = topicsOf(damage, topics);
    const more = named.length > NAMED_TOPICS ? ` and ${named.length - NAMED_TOPICS} more` : '';
    if (named.length > 0) lines.push(`    concerns:   ${named.slice(0, NAMED_TOPICS).join(', ')}${more}`);
    lines.push(`    what to do: ${advice(damage)}`);
  }
  for (const problem of report.bookies.flatMap(({ problems }) => problems)) lines.push(`  ${problem}`);
  const problem = report.metadata?.problem;
  if (problem !== undefined) lines.push(`  the metadata cannot be read: ${problem}`);
  return lines;
}

function bookieText({ folder, cookie, segments, index, ledgers }: BookieReport): string {
  const name = cookie === undefined ? 'without a cookie' : `${cookie.id}, instance ${cookie.instance}`;
  const state = index.agrees ? 'agrees with the segments' : 'does not count';
  const rows = segments.map((segment) => [
    path.basename(segment.file),
    segment.state,
    String(segment.generation),
    countText(segment.groups),
    countText(segment.entries),
    countText(segment.ledgers),
    bytesText(segment.bytes),
    segment.damages === 0 ? '' : counted(segment.damages, 'damage'),
  ]);
  const entries = ledgers.reduce((sum, ledger) => sum + entriesOf(ledger), 0);
  return [
    `Bookie in ${folder}: ${name}`,
    `  index: ${counted(index.rows, 'row')}, ${state}`,
    `  ${counted(ledgers.length, 'ledger')} with ${counted(entries, 'entry', 'entries')}`,
    '',
    table(['SEGMENT', 'STATE', 'GENERATION', 'GROUPS', 'ENTRIES', 'LEDGERS', 'SIZE', ''], rows),
    '',
  ].join('\n');
}

function metadataText({ metadata }: FolderReport): string {
  if (metadata === undefined) return '';
  if (metadata.problem !== undefined) return 'Metadata: cannot be read\n\n';
  const rows = metadata.topics.map(({ topic, ledgers, ackLedgers }) => [
    topic,
    ledgers.join(' '),
    ackLedgers.join(' '),
  ]);
  const title = `Metadata: can be read; ${counted(rows.length, 'topic')}\n`;
  return rows.length === 0
    ? `${title}\n`
    : `${title}\n${table(['TOPIC', 'LEDGERS', 'LEDGERS OF ACKNOWLEDGMENTS'], rows)}\n\n`;
}

function ledgerText(report: FolderReport, id: number): string {
  const rows: string[][] = [];
  for (const { ledgers } of report.bookies) {
    for (const { ledgerId, fenced, ranges, lost } of ledgers) {
      if (ledgerId !== id) continue;
      for (const { firstEntryId, lastEntryId, file, offset } of ranges) {
        rows.push([`${firstEntryId}-${lastEntryId}`, `${file} at ${offset}`, fenced ? 'good, fenced' : 'good']);
      }
      for (const { firstEntryId, lastEntryId } of lost) rows.push([`${firstEntryId}-${lastEntryId}`, '', 'LOST']);
    }
  }
  if (rows.length === 0) return `Ledger ${id}: nothing of it is here\n\n`;
  return `Ledger ${id}\n\n${table(['ENTRIES', 'WHERE', 'STATE'], rows)}\n\n`;
}

/** For people. `ledger`: look closer at this one. */
export function inspectText(report: FolderReport, ledger: number | undefined): string {
  const { folder, version, bookies } = report;
  const title = version === undefined ? '' : `${folder}: ${version}\n\n`;
  return [
    title,
    bookies.map((bookie) => `${bookieText(bookie)}\n`).join(''),
    metadataText(report),
    ledger === undefined ? '' : ledgerText(report, ledger),
    isHealthy(report) ? 'No damage.\n' : `Damage:\n${damageLines(report).join('\n')}\n`,
  ].join('');
}

/** For machines: one object. `ledger`: of the ledgers, this one alone. */
export function inspectJson(report: FolderReport, ledger: number | undefined): string {
  const topics = report.metadata?.topics ?? [];
  const bookies = report.bookies.map((bookie) => ({
    ...bookie,
    ledgers: bookie.ledgers.filter(({ ledgerId }) => ledger === undefined || ledgerId === ledger),
    damages: bookie.damages.map((damage) => ({
      ...damage,
      text: `${damage.file} ${damageText(damage)}`,
      concerns: topicsOf(damage, topics),
      advice: advice(damage),
    })),
  }));
  return `${JSON.stringify({ ...report, bookies, healthy: isHealthy(report) }, undefined, 2)}\n`;
}
