// Accounts of people and tokens of machines, for administrators.

import { ApiError, ask } from "./api.js";
import { button, make } from "./viewer.js";
import { DASH, empty, notice, table, timeText } from "./words.js";

export async function showAccounts(main, me) {
  void [ApiError, ask, button, make, DASH, empty, notice, table, timeText, main, me];
}
