import { defineMigration } from "rungs/database";

export default defineMigration({
  shards: {
    up: `
      create table tips (
        payer_id uuid not null,
        tip_id uuid not null,
        payee_id uuid not null check (payee_id <> payer_id),
        amount_minor bigint not null check (amount_minor between 1 and 100000),
        fee_minor bigint not null check (fee_minor >= 0 and fee_minor < amount_minor),
        currency text not null,
        message text not null,
        state text not null default 'requested' check (state in ('requested', 'charging', 'succeeded', 'declined', 'failed')),
        reason text,
        charge_id text,
        version integer not null default 1,
        check_at timestamptz not null,
        created_at timestamptz not null,
        updated_at timestamptz not null,
        primary key (payer_id, tip_id)
      );
      create index tips_to_check on tips (check_at) where state in ('requested', 'charging');

      create function tips_go_forward() returns trigger language plpgsql as $$
      begin
        if old.state <> new.state and not (
            (old.state = 'requested' and new.state in ('charging', 'failed'))
            or (old.state = 'charging' and new.state in ('succeeded', 'declined', 'failed'))) then
          raise exception 'Tip % cannot go from % to %.', old.tip_id, old.state, new.state using errcode = 'check_violation';
        end if;
        if (old.payer_id, old.tip_id, old.payee_id, old.amount_minor, old.fee_minor, old.currency)
            is distinct from (new.payer_id, new.tip_id, new.payee_id, new.amount_minor, new.fee_minor, new.currency) then
          raise exception 'Tip % has been asked for as it is.', old.tip_id using errcode = 'check_violation';
        end if;
        return new;
      end $$;
      create trigger tips_go_forward before update on tips for each row execute function tips_go_forward();

      create table received_tips (
        payee_id uuid not null,
        tip_id uuid not null,
        payer_id uuid not null,
        amount_minor bigint not null,
        fee_minor bigint not null,
        currency text not null,
        message text not null,
        created_at timestamptz not null,
        primary key (payee_id, tip_id)
      );

      create table payment_notices (
        payer_id uuid not null,
        notice_id text collate "C" not null,
        received_at timestamptz not null default now(),
        primary key (payer_id, notice_id)
      );
      create index payment_notices_by_age on payment_notices (received_at);`,
    down: `
      drop table payment_notices; drop table received_tips; drop table tips; drop function tips_go_forward;`,
  },
});
