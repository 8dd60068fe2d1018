"""What runs inside the user's environment: the fork server of a pool, and its workers.

Three processes and who owns what:

* the **fork server** imports third-party modules, forks workers, reaps them, and drains what they wrote last. It
  never runs user code. It outlives the agent, and ends when no agent comes for a while.
* a **worker** serves one lease after another. Its main thread reads calls and runs them; its attendant thread
  forwards output, hears the agent, and notices that the client is gone. It ends when its fork server does.
* the **agent** (another package) holds a control stream to each of them.
"""
