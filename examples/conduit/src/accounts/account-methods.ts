/** What accounts answer when other services call: data only, so that who calls needs none of their code. */
import { defineMethod } from "rungs/call";
import { z } from "zod";

const person = z.object({ userId: z.uuid(), username: z.string(), image: z.string() });

/** Most people asked for in one call: a page of tips at most. */
const peopleMax = 100;

/** The methods. */
export const accounts = {
  /** Who bears a name now; null when nobody does. */
  personByName: defineMethod("accounts.person_by_name", {
    input: z.object({ username: z.string() }),
    output: person.nullable(),
    isSafe: true,
  }),
  /** People by id, as they are called now. Those who are not to be had now are left out. */
  people: defineMethod("accounts.people", {
    input: z.object({ userIds: z.array(z.uuid()).max(peopleMax).readonly() }),
    output: z.array(person),
    isSafe: true,
  }),
};
