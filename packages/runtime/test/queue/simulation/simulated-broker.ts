/**
 * A broker in virtual time: two sequences a handler, each given to one process at a time.
 *
 * Connections break, and what they had brought comes again; acknowledgements are lost on the way; sequences move, with grace for what
 * began; what is handed back takes its place again. A RabbitMQ marks all that a broken connection had brought as repeated, and a
 * process hears of the break late; a Kafka marks what may have begun.
 */
import type { Random } from "../../../src/kernel/random.ts";
import type { BrokerDelivery, BrokerMessage } from "../../../src/queue/broker.ts";
import type { Machine, SimulatedTime } from "./simulated-time.ts";

const sequencesOfHandler = 2;
const graceMs = 1_000;

interface Entry {
  readonly message: BrokerMessage;
  isRepeated: boolean;
  offer: Offer | undefined;
  notBefore: number;
  handBacks: number;
}

interface Sequence {
  readonly handler: string;
  readonly entries: Entry[];
  holder: Connection | undefined;
  isYielding: boolean;
}

export interface Connection {
  readonly machine: Machine;
  readonly deliver: (delivery: BrokerDelivery) => void;
  readonly room: number;
  readonly paused: Set<string>;
  readonly out: Set<Offer>;
  /** It takes part from then on. */
  openAt: number;
  isClosed: boolean;
}

export class SimulatedBroker {
  readonly sequences: Sequence[];
  private readonly connections: Connection[] = [];
  private readonly time: SimulatedTime;
  private readonly random: Random;
  private readonly isRabbit: boolean;
  /** Hears of each acknowledgement before it takes effect. */
  private readonly onAck: (message: BrokerMessage, handler: string) => void;

  constructor(options: {
    readonly time: SimulatedTime;
    readonly random: Random;
    readonly handlers: readonly string[];
    readonly isRabbit: boolean;
    readonly onAck: (message: BrokerMessage, handler: string) => void;
  }) {
    this.time = options.time;
    this.random = options.random;
    this.isRabbit = options.isRabbit;
    this.onAck = options.onAck;
    this.sequences = options.handlers.flatMap((handler) =>
      Array.from({ length: sequencesOfHandler }, () => ({
        handler,
        entries: [],
        holder: undefined,
        isYielding: false,
      })),
    );
    const tick = () => {
      this.share();
      this.time.after(50, tick);
    };
    tick();
  }

  append(message: BrokerMessage, place: number): void {
    const handlers = new Set(this.sequences.map(({ handler }) => handler));
    for (const handler of handlers) {
      const sequence = this.sequences.filter((each) => each.handler === handler)[
        place % sequencesOfHandler
      ] as Sequence;
      sequence.entries.push({ message, isRepeated: false, offer: undefined, notBefore: 0, handBacks: 0 });
      this.pump(sequence);
    }
  }

  connect(machine: Machine, room: number, deliver: (delivery: BrokerDelivery) => void): Connection {
    const connection = {
      machine,
      deliver,
      room,
      paused: new Set<string>(),
      out: new Set<Offer>(),
      openAt: 0,
      isClosed: false,
    };
    this.connections.push(connection);
    return connection;
  }

  /** The connection is cut; the process opens it again after a while. */
  break(connection: Connection): void {
    connection.openAt = Math.max(this.time.now() + 200 + 800 * this.random.next(), connection.machine.frozenUntil);
    for (const sequence of this.sequences) if (sequence.holder === connection) this.take(sequence);
  }

  /** Ended by the process itself, or because it died. */
  close(connection: Connection): void {
    connection.isClosed = true;
    this.break(connection);
    for (const offer of connection.out) offer.lose();
    connection.out.clear();
  }

  pause(connection: Connection, handler: string): void {
    connection.paused.add(handler);
    for (const sequence of this.sequences) {
      if (sequence.holder === connection && sequence.handler === handler) this.withdrawUnbegun(sequence.entries);
    }
  }

  resume(connection: Connection): void {
    connection.paused.clear();
    this.share();
  }

  /** Gives a sequence to another process, once what began is settled or the grace is over. */
  move(sequence: Sequence): void {
    const { holder } = sequence;
    if (holder === undefined || sequence.isYielding || holder.machine.frozenUntil > this.time.now()) return;
    sequence.isYielding = true;
    this.withdrawUnbegun(sequence.entries);
    const until = this.time.now() + graceMs;
    const look = () => {
      if (sequence.holder !== holder) return;
      const isIdle = sequence.entries.every(({ offer }) => offer === undefined);
      if (!isIdle && this.time.now() < until) return void this.time.after(20, look);
      this.take(sequence);
      // The next one is another, where there is one.
      const others = this.connections.filter((each) => each !== holder && this.isOpen(each));
      sequence.holder = others[Math.floor(this.random.next() * others.length)];
      this.pump(sequence);
    };
    look();
  }

  acknowledged(offer: Offer): void {
    const { entry, sequence, connection } = offer;
    this.onAck(entry.message, sequence.handler);
    connection.out.delete(offer);
    this.time.after(5 * this.random.next(), () => {
      if (entry.offer === offer) sequence.entries.splice(sequence.entries.indexOf(entry), 1);
      this.pump(sequence);
    });
  }

  handedBack(offer: Offer): void {
    const { entry, sequence } = offer;
    const behind = sequence.entries.slice(sequence.entries.indexOf(entry) + 1);
    entry.isRepeated ||= offer.hasBegun;
    entry.notBefore = this.time.now() + Math.min(2_000, 50 * 2 ** entry.handBacks++);
    this.withdraw(entry);
    const { key } = entry.message;
    if (key !== null) this.withdrawUnbegun(behind.filter(({ message }) => message.key === key));
  }

  private share(): void {
    for (const sequence of this.sequences) {
      const open = this.connections.filter((each) => this.isOpen(each));
      sequence.holder ??= open[Math.floor(this.random.next() * open.length)];
      this.pump(sequence);
    }
  }

  private isOpen({ isClosed, openAt, machine }: Connection): boolean {
    return !isClosed && !machine.isDead && openAt <= this.time.now();
  }

  /** Away from its holder: what that had comes again. */
  private take(sequence: Sequence): void {
    const machine = sequence.holder?.machine;
    sequence.holder = undefined;
    sequence.isYielding = false;
    const lost: Offer[] = [];
    for (const entry of sequence.entries) {
      const { offer } = entry;
      if (offer === undefined) continue;
      lost.push(offer);
      entry.isRepeated ||= this.isRabbit || offer.hasBegun || offer.isAcknowledged || this.random.next() < 0.3;
      entry.offer = undefined;
      offer.connection.out.delete(offer);
    }
    const lose = () => {
      for (const offer of lost) offer.lose();
    };
    if (this.isRabbit) this.time.after(100 * this.random.next(), lose, machine);
    else lose();
  }

  private withdrawUnbegun(entries: readonly Entry[]): void {
    for (const entry of entries) {
      if (entry.offer !== undefined && !entry.offer.hasBegun && !entry.offer.isAcknowledged) this.withdraw(entry);
    }
  }

  private withdraw(entry: Entry): void {
    const { offer } = entry;
    if (offer === undefined) return;
    entry.offer = undefined;
    offer.connection.out.delete(offer);
    offer.lose();
  }

  private pump(sequence: Sequence): void {
    const { holder, handler, entries } = sequence;
    if (holder === undefined || sequence.isYielding || holder.paused.has(handler) || !this.isOpen(holder)) return;
    let free = holder.room - [...holder.out].filter((offer) => offer.handler === handler).length;
    const passed = new Set<string>();
    for (const entry of entries) {
      if (free <= 0) return;
      const { key } = entry.message;
      if (entry.offer !== undefined || (key !== null && passed.has(key))) continue;
      if (entry.notBefore > this.time.now()) {
        if (key !== null) passed.add(key);
        continue;
      }
      const offer = new Offer(this, sequence, entry, holder);
      entry.offer = offer;
      holder.out.add(offer);
      free--;
      this.time.after(0, () => !offer.isLost() && holder.deliver(offer), holder.machine);
    }
  }
}

class Offer implements BrokerDelivery {
  readonly message: BrokerMessage;
  readonly handler: string;
  readonly isRepeated: boolean;
  readonly entry: Entry;
  readonly sequence: Sequence;
  readonly connection: Connection;
  hasBegun = false;
  isAcknowledged = false;
  private wasLost = false;
  private readonly broker: SimulatedBroker;

  constructor(broker: SimulatedBroker, sequence: Sequence, entry: Entry, connection: Connection) {
    this.broker = broker;
    this.sequence = sequence;
    this.entry = entry;
    this.connection = connection;
    this.message = entry.message;
    this.handler = sequence.handler;
    this.isRepeated = entry.isRepeated;
  }

  begin(): boolean {
    if (this.wasLost || this.isAcknowledged) return false;
    this.hasBegun = true;
    return true;
  }

  isLost(): boolean {
    return this.wasLost;
  }

  ack(): void {
    if (this.wasLost || this.isAcknowledged) return;
    this.isAcknowledged = true;
    this.broker.acknowledged(this);
  }

  handBack(): void {
    if (this.wasLost || this.isAcknowledged || this.entry.offer !== this) return;
    this.broker.handedBack(this);
  }

  lose(): void {
    this.wasLost = true;
  }
}
