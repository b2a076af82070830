/** The program, with metrics that forget one stored entry in ten and every acknowledgment. */
import { Traffic } from '../../services/broker/metrics/traffic.ts';
import { main } from '../../services/main/main.ts';

let stored = 0;
const remember = Object.getOwnPropertyDescriptor(Traffic.prototype, 'stored')?.value as Traffic['stored'];
Traffic.prototype.stored = function forgetful(...entry) {
  if (stored++ % 10 !== 0) remember.apply(this, entry);
};
Traffic.prototype.acknowledged = () => {};

await main(process.argv.slice(2));
