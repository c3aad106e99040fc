"""Where results go, and which of the outputs chosen still belong to what is chosen above."""

from .parameters import OUTPUTS, Task
from .part import Part


class OutputsView(Part):
    """Result and maps."""

    def subject(self):
        """The settings, besides the input, that determine the name of a result."""
        parameters = self._parameterNode
        choices = [parameters.task.name, parameters.model]
        if parameters.task is Task.TRANSLATE:
            choices += [parameters.contrast.name, parameters.target, parameters.firstModel]
        if parameters.task is not Task.TRANSLATE or parameters.firstModel:
            choices += [parameters.sizeMode.name, parameters.factor, parameters.spacing]
        return " ".join(map(str, choices))

    def leaveResults(self):
        """Once input or subject are others, the next results get volumes of their own, and overwrite none."""
        parameters = self._parameterNode
        sameInput = self._live(parameters.inputVolume) is parameters.madeFrom
        if not parameters.madeFor or (sameInput and parameters.madeFor == self.subject()):
            return
        parameters.madeFor = ""
        for name in OUTPUTS:
            setattr(parameters, name, None)

    def maps(self):
        """The maps by name: the node chosen for each and whether it will be made."""
        parameters = self._parameterNode
        translates = parameters.task is Task.TRANSLATE
        several = self.panel.inputs.draws() and parameters.samples > 1
        hasTruth = self._live(parameters.truthVolume) is not None
        return {
            "errorMap": (parameters.errorMap, parameters.makeErrorMap and hasTruth),
            "consistencyMap": (parameters.consistencyMap, parameters.makeConsistencyMap and not translates),
            "uncertaintyMap": (parameters.uncertaintyMap, parameters.makeUncertaintyMap and several),
        }
