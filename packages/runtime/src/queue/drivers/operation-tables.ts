/**
 * What operators and autoscalers need beside the jobs: which handlers are paused, how much each of them has to do, and what of an
 * event's older versions must not be shown. Of the first three tables only the home database's rows are used.
 *
 * `rungs_handler_load`: counters that every process with handlers adds to every few seconds, and in `load` what one of them, by turns
 * that `rungs_load_turns` keeps, made of them and of what waits; see `postgres-handler-load.ts`.
 */

export const operationTables = `
  create table rungs_pauses (
    handler text collate "C" primary key,
    paused_at timestamptz not null default clock_timestamp()
  );

  create table rungs_handler_load (
    handler text collate "C" primary key,
    delivered float8 not null default 0,
    done float8 not null default 0,
    busy_ms float8 not null default 0,
    load jsonb
  ) with (fillfactor = 50);

  create table rungs_load_turns (
    only_row boolean primary key default true check (only_row),
    measured_at timestamptz not null default '-infinity'
  ) with (fillfactor = 50);
  insert into rungs_load_turns default values;

  alter table rungs_events add sensitive_of jsonb not null default '{}';
  update rungs_events set sensitive_of = jsonb_build_object('1', sensitive);`;

/**
 * Jobs due or behind another of their key, those at work included, and how long the oldest has been due. Exact up to about 1,000 a
 * handler and priority; above, what the planner expects, which knows the table by samples.
 */
const waiting = (planSettings: string) => `
  create function rungs_waiting(handlers text[])
  returns table (handler_name text, waiting bigint, oldest_ms float8) language plpgsql ${planSettings} as $body$
  declare
    now_at timestamptz := clock_timestamp();
    counted bigint;
    behind bigint;
    is_cut boolean;
    first timestamptz;
    earliest timestamptz;
    estimate json;
  begin
    foreach handler_name in array handlers loop
      waiting := 0;
      is_cut := false;
      earliest := null;
      for level in 0 .. 2 loop
        select count(*), min(r.run_at) into counted, first from (
          select j.run_at from rungs_jobs j
          where j.handler = handler_name and j.state = 0 and j.priority = level and j.run_at <= now_at
          order by j.run_at, j.sequence limit 1001) r;
        waiting := waiting + counted;
        is_cut := is_cut or counted > 1000;
        earliest := least(earliest, first);
      end loop;
      select count(*), count(*) filter (where r.state = 1) into counted, behind from (
        select j.state from rungs_jobs j
        where j.handler = handler_name and j.key is not null and j.state < 2
        order by j.handler, j.key, j.sequence limit 1001) r;
      waiting := waiting + behind;
      if is_cut or counted > 1000 then
        execute format(
          'explain (format json) select from rungs_jobs where handler = %L and state < 2 and run_at <= %L', handler_name, now_at
        ) into estimate;
        waiting := greatest(waiting, (estimate #>> '{0,Plan,Plan Rows}')::bigint);
      end if;
      oldest_ms := extract(epoch from now_at - earliest) * 1000;
      return next;
    end loop;
  end $body$;`;

/** Messages in the outbox by event: exact up to 1,000; above, by the shares that the oldest 1,000 have. */
const outboxWaiting = (planSettings: string) => `
  create function rungs_outbox_waiting()
  returns table (event_name text, waiting float8, oldest_ms float8) language plpgsql ${planSettings} as $body$
  declare
    low bigint := (select floor from rungs_relay);
  begin
    return query
      with head as (
        select o.sequence, o.event, o.published_at from rungs_outbox o where o.sequence >= low order by o.sequence limit 1000
      ), whole as (
        select case when count(*) < 1000 then 1 else greatest(1,
          (pg_sequence_last_value(pg_get_serial_sequence('rungs_outbox', 'sequence')) - min(h.sequence) + 1) / 1000.0) end as factor
        from head h
      )
      select h.event, (count(*) * max(w.factor))::float8, (extract(epoch from clock_timestamp() - min(h.published_at)) * 1000)::float8
      from head h cross join whole w group by h.event;
  end $body$;`;

export const operationFunctions = (planSettings: string) =>
  [waiting(planSettings), outboxWaiting(planSettings)].join("\n");

/** Undoes {@link operationTables} and {@link operationFunctions}: what was paused goes on. */
export const dropOperation = `
  drop function rungs_waiting, rungs_outbox_waiting;
  alter table rungs_events drop sensitive_of;
  drop table rungs_pauses, rungs_handler_load, rungs_load_turns;`;
