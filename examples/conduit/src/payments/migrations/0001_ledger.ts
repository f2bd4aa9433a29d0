import { defineMigration } from "rungs/database";

/** See `../ledger.ts` for what the accounts mean. The rules are the database's own: no client can get round them by mistake. */
export default defineMigration({
  shards: {
    up: `
      create table ledger_accounts (
        owner_id uuid not null,
        account text collate "C" not null
          check (account in ('provider_receivable', 'clearing', 'fee_revenue', 'user_balance')),
        currency text collate "C" not null check (currency ~ '^[A-Z]{3}$'),
        type text collate "C" not null generated always as (case account
          when 'provider_receivable' then 'asset' when 'clearing' then 'transit'
          when 'fee_revenue' then 'revenue' else 'liability' end) stored,
        balance_minor bigint not null default 0,
        primary key (owner_id, account, currency)
      );
      create table ledger_entries (
        owner_id uuid not null,
        entry_id uuid not null,
        kind text not null check (kind in ('tip_captured', 'tip_received')),
        tip_id uuid not null,
        booked_at timestamptz not null,
        booked_by xid8 not null default pg_current_xact_id(),
        primary key (owner_id, entry_id),
        unique (owner_id, tip_id, kind)
      );
      create table ledger_lines (
        owner_id uuid not null,
        entry_id uuid not null,
        line smallint not null check (line between 1 and 100),
        account text collate "C" not null,
        currency text collate "C" not null,
        amount_minor bigint not null check (amount_minor <> 0),
        primary key (owner_id, entry_id, line),
        foreign key (owner_id, entry_id) references ledger_entries,
        foreign key (owner_id, account, currency) references ledger_accounts deferrable initially deferred
      );

      create function ledger_refuse() returns trigger language plpgsql as $$
      begin
        raise exception '% of % is refused: the ledger only grows. Book an entry that reverses the wrong one.', tg_op, tg_table_name
          using errcode = 'restrict_violation';
      end $$;
      create trigger ledger_append_only before update or delete on ledger_entries
        for each row execute function ledger_refuse();
      create trigger ledger_append_only before update or delete on ledger_lines
        for each row execute function ledger_refuse();
      create trigger ledger_keeps_all before truncate on ledger_entries execute function ledger_refuse();
      create trigger ledger_keeps_all before truncate on ledger_lines execute function ledger_refuse();
      create trigger ledger_keeps_all before truncate on ledger_accounts execute function ledger_refuse();

      create function ledger_keep_balances() returns trigger language plpgsql as $$
      begin
        insert into ledger_accounts as a (owner_id, account, currency, balance_minor)
          select owner_id, account, currency, sum(amount_minor) from booked
          group by owner_id, account, currency order by owner_id, account, currency
          on conflict (owner_id, account, currency) do update set balance_minor = a.balance_minor + excluded.balance_minor;
        return null;
      end $$;
      create trigger ledger_keep_balances after insert on ledger_lines referencing new table as booked
        for each statement execute function ledger_keep_balances();

      create function ledger_guard_balances() returns trigger language plpgsql as $$
      begin
        if pg_trigger_depth() > 1 and tg_op <> 'DELETE' then return new; end if;
        raise exception '% of ledger_accounts is refused: balances follow from ledger_lines.', tg_op
          using errcode = 'restrict_violation';
      end $$;
      create trigger ledger_guard_balances before insert or update or delete on ledger_accounts
        for each row execute function ledger_guard_balances();

      create function ledger_check_entry() returns trigger language plpgsql as $$
      declare
        unbalanced text;
      begin
        if not exists (select 1 from ledger_entries e where e.owner_id = new.owner_id and e.entry_id = new.entry_id
            and e.booked_by = pg_current_xact_id()) then
          raise exception 'Ledger entry % was closed when its transaction ended.', new.entry_id
            using errcode = 'restrict_violation';
        end if;
        if not exists (select 1 from ledger_lines l where l.owner_id = new.owner_id and l.entry_id = new.entry_id) then
          raise exception 'Ledger entry % has no lines.', new.entry_id using errcode = 'check_violation';
        end if;
        select string_agg(currency || ' by ' || off, ', ') into unbalanced from (
          select currency, sum(amount_minor) as off from ledger_lines l
          where l.owner_id = new.owner_id and l.entry_id = new.entry_id group by currency having sum(amount_minor) <> 0) s;
        if unbalanced is not null then
          raise exception 'Ledger entry % does not balance: off in %.', new.entry_id, unbalanced
            using errcode = 'check_violation';
        end if;
        return null;
      end $$;
      create constraint trigger ledger_entry_balances after insert on ledger_entries deferrable initially deferred
        for each row execute function ledger_check_entry();
      create constraint trigger ledger_lines_balance after insert on ledger_lines deferrable initially deferred
        for each row execute function ledger_check_entry();`,
    down: `
      drop table ledger_lines; drop table ledger_entries; drop table ledger_accounts;
      drop function ledger_check_entry; drop function ledger_guard_balances; drop function ledger_keep_balances;
      drop function ledger_refuse;`,
  },
});
