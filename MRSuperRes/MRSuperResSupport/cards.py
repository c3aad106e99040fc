"""Model cards in words for the panel: a line, the whole card, and how long a model took on this machine."""

import slicer

from MRSuperResLib.models import scores

from .words import _

SPEED = "MRSuperRes/SecondsPerMegavoxel/{model}/{device}"  # settings of the application


def describe(entry):
    """The card in plain words, a fact per line."""
    card = entry.card
    if card.is_baseline:
        return _("{title}. What Slicer does without a model; for comparison.").format(title=card.title)
    lines = [_("{title}, version {version}.").format(title=card.title, version=card.version) + f" {card.intended_use}"]
    if "research use only" not in card.intended_use.lower():
        lines.append(_("Research use only."))
    contrasts = ", ".join(card.contrasts)
    if card.task == "translate":
        text = _("Makes {targets} of {contrasts} of the {anatomy}.")
        lines.append(
            text.format(targets=_(" or ").join(card.target_contrasts), contrasts=contrasts, anatomy=card.anatomy)
        )
    else:
        lines.append(_("For {contrasts} of the {anatomy}.").format(contrasts=contrasts, anatomy=card.anatomy))
    if card.spacing is not None:
        (low, high), (thin, thick) = card.spacing.in_plane, card.spacing.through_plane
        text = _("Trained for voxels of {low:g} to {high:g} mm in plane and slices of {thin:g} to {thick:g} mm.")
        lines.append(text.format(low=low, high=high, thin=thin, thick=thick))
    gains = [score.psnr - score.baseline["bspline"][0] for score in card.metrics if "bspline" in score.baseline]
    if gains:
        text = _("On {count} held-out scans {mean:+.1f} dB PSNR over B-spline ({least:+.1f} to {most:+.1f}).")
        mean = sum(gains) / len(gains)
        lines.append(text.format(count=len(gains), mean=mean, least=min(gains), most=max(gains)))
    if card.paper is not None:
        text = _("After {authors}, {year}: {title}.")
        lines.append(text.format(authors=card.paper.authors, year=card.paper.year, title=card.paper.title))
    lines.append(_("Licence {licence}.").format(licence=card.licence))
    return "\n".join(lines)


def line(entry, seconds=None):
    """What the model is for, what it gained, and how long it will take here, in a line; seconds: None if not known."""
    card = entry.card
    if card.is_baseline:
        parts = [_("Interpolation, no model")]
    else:
        parts = [
            _("For {contrasts} of the {anatomy}").format(contrasts=", ".join(card.contrasts), anatomy=card.anatomy)
        ]
        gain = scores.mean_gain(card)
        if gain:
            parts.append(_("{gain:+.1f} dB").format(gain=gain))
    if seconds is not None:
        time = _("{m} min").format(m=round(seconds / 60)) if seconds >= 60 else duration(seconds)  # it is a guess
        parts.append(_("about {time}").format(time=time))
    return " · ".join(parts)


def duration(seconds):
    """Seconds in words: "40 s", "2 min 5 s"."""
    minutes, rest = divmod(max(1, round(seconds)), 60)
    return _("{m} min {s} s").format(m=minutes, s=rest) if minutes else _("{s} s").format(s=rest)


def expectedSeconds(model, device, voxels):
    """How long `model` took here the last time, for `voxels` of a result; None if it never ran here."""
    text = slicer.app.userSettings().value(SPEED.format(model=model, device=device))
    return float(text) * voxels / 1e6 if text else None


def rememberSeconds(model, device, voxels, seconds):
    """Keep how long a run took."""
    if voxels:
        slicer.app.userSettings().setValue(SPEED.format(model=model, device=device), f"{seconds / voxels * 1e6:.6g}")
