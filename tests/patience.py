"""For the test of the notebooks' cells: nbval gives up after 5 s without output, and has no option for it."""

from nbval.plugin import IPyNbCell

begin = IPyNbCell.__init__


def patient(self, *arguments, **options):
    begin(self, *arguments, **options)
    self.output_timeout = 120


IPyNbCell.__init__ = patient
