"""The parts of the emulator.

They import each other and modules written in C, nothing else, because two thousand emulators have to fit on
one machine: `json` alone would cost each of them 1.2 MB and 7 ms, `signal` 0.9 MB and 5 ms.
"""
