"""Where should T read M: Entry, Middle or Output? Six architectures, MNIST and CIFAR-10.

    python benchmarks/table1.py --data MNIST=FOLDER --data CIFAR-10=FOLDER --scale cpu

In place of Table 1 of aMINT (DeAlcala et al., ICCV 2025). We could read summaries of the paper and
its public code, not its tables: they report that setups are compared on these two sets. Ours says,
for each cell, what T costs (audited accuracy of M+ beside M alone from the same nonce), what it can
tell (balanced accuracy, AUC, TPR at rates calibrated on C, with exact intervals), what it cannot
(silent and told-only samples), and time and memory. The paper takes its threshold from the samples
it tests, so that its accuracies and ours are not the same figure.

Each training runs in a process of its own and is kept; the same command goes on where it stopped.
Scale gpu trains whole sets on a GPU in bfloat16 with the pixels on the device; it has not been run
on one yet. At scale cpu the six cells of MobileNet, of 36 in all, have been measured
(results/table1_cpu.md), in 124 to 159 seconds each.
"""

from paper_tables import main

if __name__ == "__main__":
    main("table1", __doc__)
