"""Active against Passive MINT in the Entry setup: six architectures on five data sets.

    python benchmarks/table3.py --data CIFAR-10=FOLDER --scale cpu --cells mobilenet

In place of Table 3 of aMINT (DeAlcala et al., ICCV 2025), whose tables we could not read; its
summaries report that Active MINT is compared with Passive MINT on all five sets. Active MINT is T
of the joint training. Passive MINT (Vanilla, CNN where the taps are maps, and the black-box form
on M's outcome) is fitted on half of D and E of M alone, which nobody prepared for it, and judged on
the other half. Thresholds come from C for all of them. The trainings are those of table2.py, and
its kept results are used. Not measured yet.
"""

from paper_tables import main

if __name__ == "__main__":
    main("table3", __doc__)
