//! Faults on real clusters of processes, with histories and checkers.
