"""The page of a compression: what each variant costs and saves, who pays, and the cases that changed most."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hilum.evaluation import Table as CaseTable
from hilum.report import Block, Paragraph, ReportPage, Section, Table, page_blocks, wording
from hilum.report.figures import charts
from hilum.report.page_blocks import Details, Figure, Gallery, Link
from hilum.runtime import Model
from hilum.values import Estimate
from hilum.verbs.compressing.case_roles import CaseRoles
from hilum.verbs.compressing.compression_rows import FLOAT, VariantRow
from hilum.verbs.compressing.variant_price import ECE, VariantPrice

# Cases of a variant whose pictures are shown.
SHOWN = 2
# Figures at the operating point that was fixed before, beside the primary metric.
OF_THE_POINT = ("sensitivity", "specificity", ECE)
COSTS = {"latency_ms": "ms an image", "size_mb": "MB on disk", "peak_mib": "MiB of memory at most"}
FILES = [Link("compression.json", "compression.json"), Link("changed.csv", "changed.csv")]


@dataclass(frozen=True, eq=False)
class CompressionPage:
    """What the page shows.

    prices:  {variant: its price}
    changed: {variant: its cases, those that changed most first}
    machine: on which times were taken
    """

    name: str
    rows: Sequence[VariantRow]
    prices: Mapping[str, VariantPrice]
    changed: Mapping[str, CaseTable]
    roles: CaseRoles
    machine: str

    def html(self, models: Mapping[str, Callable[[], Model]]) -> str:
        """The page; models: the model in float first, then each variant, which show the cases that changed most."""
        passed = [f"{one.variant} by {one.backend}" for one in self.rows if one.passed and one.variant != FLOAT]
        verdict = f"Passed: {', '.join(passed)}." if passed else "No variant passed."
        instructions = ", ".join(next((one.instructions for one in self.rows if one.instructions), ())) or "not known"
        sections = [
            Section("Cost and score", [*self._charts(), self._table()], FILES),
            Section("Who pays", self._groups(), FILES),
            Section("Cases that changed most", self._pictures(models), FILES),
        ]
        notes = [
            "A variant is taken only on a processor with the same instructions: elsewhere its sums may be others.",
            *([] if self.roles.patients_known else ["Patients are unknown: each case stands for one."]),
        ]
        return page_blocks.render_page(
            ReportPage(
                f"{self.name}, compressed",
                [],
                sections,
                {"machine": self.machine, "instructions": instructions},
                lead=wording.as_sentence(self.roles.parts),
                verdict=verdict,
                remarks={"Keep in mind": notes},
            )
        )

    def _charts(self) -> list[Block]:
        """Latency, size and memory against the primary metric."""
        scored = [(row, one) for row in self.rows if (one := self._estimate(row)) is not None]
        metric = next((price.words for price in self.prices.values() if price.metric), "score")
        figures = []
        for column, axis in COSTS.items():
            shown = [(self._name(one), float(cost), score) for one, score in scored if (cost := getattr(one, column))]
            if shown:
                figures.append(charts.cost_against_score(shown, f"{metric} by {axis}", axes=(axis, metric)))
        return [Gallery(figures)] if figures else []

    @staticmethod
    def _name(row: VariantRow) -> str:
        return row.backend if row.variant == FLOAT or row.key == row.backend else f"{row.variant}, {row.backend}"

    def _estimate(self, row: VariantRow) -> Estimate | None:
        price = self.prices.get(row.key)
        if price is not None:
            return price.value if price.test is not None else None
        known = [one.exact for one in self.prices.values() if one.test is not None]
        return known[0] if known and row.value is not None else None

    def _table(self) -> Block:
        columns = [
            "Variant",
            "Backend",
            "MB",
            "ms a window",
            "ms an image",
            "ms to the first",
            "MiB",
            "Loss",
            "Verdict",
        ]
        cells = [
            [
                row.variant,
                row.backend,
                _rounded(row.size_mb, 2),
                _rounded(row.window_ms, 1),
                _rounded(row.latency_ms, 0),
                _rounded(row.cold_ms, 0),
                _rounded(row.peak_mib, 0),
                self._loss_text(row),
                f"{'passed' if row.passed else 'did not pass'}: {row.because}",
            ]
            for row in self.rows
        ]
        return Table(columns, cells)

    def _loss_text(self, row: VariantRow) -> str:
        price = self.prices.get(row.key)
        if price is None or price.test is None:
            return ""
        apart = price.difference
        value = wording.number_text(apart.value, places=4, signed=True)
        return f"{price.words} {value}, {wording.interval_text(apart, 4)}"

    def _groups(self) -> list[Block]:
        """The difference of each variant in each group and label, and the figures at the operating point."""
        blocks = list[Block]()
        for name, price in self.prices.items():
            if not price.tests:
                blocks.append(Paragraph(wording.as_sentence(f"{name}: {price.because}")))
                continue
            lines = [(one.group or "all cases", one.label, one.estimate, True) for one in price.tests]
            blocks.append(
                charts.forest(lines, f"{name}: difference in {price.words}", axis=f"{price.words}, less that of float")
            )
            cells = [
                [one.group or "all cases", one.label, one.estimate, wording.p_text(one.p_adjusted)]
                for one in price.tests
            ]
            adjusted = Table(["Group", "Label", "Difference", "p, adjusted by Holm"], cells)
            blocks.append(Details(f"Tests of {name}", [adjusted, *_point_table(price)]))
        return blocks

    def _pictures(self, models: Mapping[str, Callable[[], Model]]) -> list[Block]:
        """The cases that changed most, in float and in each variant."""
        cases = {case.id: case for case in self.roles.deciding}
        plain, blocks = next(iter(models)), list[Block]()
        for name, table in self.changed.items():
            chosen = [str(one) for one in dict.fromkeys(table.loc[table["difference"] != 0, "case"])][:SHOWN]
            figures = list[Figure]()
            for which in (plain, name) if chosen else ():
                model = models[which]()
                for one in chosen:
                    pictures = model.task.figures(model.predict(cases[one]), cases[one])
                    figures += [_named(figure, f"{one} by {which}") for figure in pictures[:1]]
            words = "Above in float, below in this variant." if chosen else "No case changed."
            blocks += [Paragraph(f"{name}. {words}"), *([Gallery(figures)] if figures else [])]
        return blocks or [Paragraph("No variant was measured.")]


def _named(figure: Figure, title: str) -> Figure:
    return Figure(title, figure.png, figure.alt, figure.caption, figure.svg, figure.wide, figure.href)


def _point_table(price: VariantPrice) -> list[Block]:
    """Sensitivity, specificity and calibration before and after."""
    comparison = price.comparison
    rows = [] if comparison is None else [row for row in comparison.rows if row.metric.startswith(OF_THE_POINT)]
    cells = [[row.metric, row.label, *row.estimates, row.differences[0]] for row in rows]
    return [Table(["Metric", "Label", "Float", "Variant", "Difference"], cells)] if cells else []


def _rounded(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"
