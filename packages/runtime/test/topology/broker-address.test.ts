/** Addresses of message brokers in a topology: several hosts, TLS, and no password in a file. */
import { describe, expect, it } from "vitest";
import { addressProblem, redactAddress } from "../../src/topology/address.ts";

describe("the address of a message broker", () => {
  it.each([
    "amqp://mq-1",
    "amqps://mq-1:5671,mq-2:5671/app",
    "kafka://kafka-1",
    "kafka://kafka-1:9092,kafka-2:9092,kafka-3:9092",
    "kafka+ssl://app@kafka-1:9093,kafka-2:9093",
  ])("may name one host or several: %s", (url) => {
    expect(addressProblem(url, "queue", false)).toBeUndefined();
  });

  it("may hold a password only where it comes from the environment", () => {
    const url = "kafka+ssl://app:hush@kafka-1,kafka-2";
    expect(addressProblem(url, "queue", true)).toBeUndefined();
    expect(addressProblem(url, "queue", false)).toContain("secrets are given by reference");
    expect(redactAddress(url)).not.toContain("hush");
    expect(redactAddress("kafka://kafka-1:9092,kafka-2")).toBe("kafka://kafka-1:9092");
  });

  it("of another kind is refused", () => {
    for (const url of ["redis://host", "kafka+tls://host", "http://host", "kafka-1:9092"]) {
      expect(addressProblem(url, "queue", true), url).toContain("expected a URL such as amqp://host");
    }
    expect(addressProblem("postgres://a,b/name", "database", true)).toContain("names several hosts");
  });
});
