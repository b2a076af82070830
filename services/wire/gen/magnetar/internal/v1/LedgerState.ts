// Original file: proto/magnetar/internal/v1/records.proto

export const LedgerState = {
  LEDGER_STATE_OPEN: 'LEDGER_STATE_OPEN',
  LEDGER_STATE_IN_RECOVERY: 'LEDGER_STATE_IN_RECOVERY',
  LEDGER_STATE_CLOSED: 'LEDGER_STATE_CLOSED',
} as const;

export type LedgerState =
  | 'LEDGER_STATE_OPEN'
  | 0
  | 'LEDGER_STATE_IN_RECOVERY'
  | 1
  | 'LEDGER_STATE_CLOSED'
  | 2

export type LedgerState__Output = typeof LedgerState[keyof typeof LedgerState]
