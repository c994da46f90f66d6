"""Silhouettes of things to wear."""

from mlplatform.demo.photos.pen import Pen


def t_shirt(pen: Pen) -> None:
    body, sleeve = pen.between(0.42, 0.55), pen.between(0.82, 0.98)
    hem = pen.between(0.68, 0.88)
    pen.mirrored(
        [(0.2, -0.75), (0.5, -0.68), (sleeve, -0.2), (sleeve - 0.24, -0.05), (body, -0.28), (body, hem)]
    )
    pen.ellipse(0, -0.76, 0.22, pen.between(0.12, 0.24), "hole")
    pen.arc(0, -0.76, 0.24, 0.2, (0, 180), 0.05, "dark")
    if pen.chance(0.4):
        pen.ellipse(0, 0.0, 0.2, 0.2, "accent")


def dress(pen: Pen) -> None:
    waist, flare = pen.between(0.2, 0.27), pen.between(0.55, 0.85)
    pen.mirrored(
        [
            (0.16, -0.92),
            (0.24, -0.92),
            (0.34, -0.5),
            (waist, -0.12),
            (waist + 0.06, 0.0),
            (flare, 0.9),
            (0.2, 0.96),
        ]
    )
    pen.ellipse(0, -0.95, 0.16, pen.between(0.2, 0.34), "hole")
    pen.line([(-waist, -0.1), (waist, -0.1)], 0.08, "accent" if pen.chance(0.6) else "dark")
    for x in (-0.3, -0.1, 0.1, 0.3):
        pen.line([(x * 0.6, 0.05), (x * flare * 1.7, 0.88)], 0.02, "dark")


def trousers(pen: Pen) -> None:
    leg, spread = pen.between(0.17, 0.26), pen.between(0.3, 0.42)
    pen.mirrored(
        [(0.36, -0.95), (0.46, -0.4), (spread + leg, 0.95), (spread - leg + 0.1, 0.95), (0.03, -0.3)]
    )
    pen.polygon([(-0.37, -0.95), (0.37, -0.95), (0.385, -0.8), (-0.385, -0.8)], "dark")
    pen.line([(0, -0.8), (0, -0.36)], 0.025, "dark")
    pen.line([(0.36, -0.74), (0.25, -0.58)], 0.025, "dark")
    pen.line([(-0.36, -0.74), (-0.25, -0.58)], 0.025, "dark")


def skirt(pen: Pen) -> None:
    flare, hem = pen.between(0.7, 0.95), pen.between(0.45, 0.7)
    pen.mirrored([(0.36, -0.6), (0.4, -0.45), (flare, hem), (flare * 0.5, hem + 0.1), (0.0, hem + 0.13)])
    pen.polygon([(-0.37, -0.64), (0.37, -0.64), (0.4, -0.44), (-0.4, -0.44)], "accent")
    for k in range(-3, 4):
        pen.line([(k * 0.1, -0.42), (k * flare * 0.27, hem + 0.04)], 0.022, "dark")


def sneaker(pen: Pen) -> None:
    toe = pen.between(0.78, 0.95)
    pen.blob(
        [
            (-0.85, -0.2),
            (-0.5, -0.4),
            (-0.3, -0.42),
            (0.0, -0.12),
            (0.5, 0.08),
            (toe, 0.22),
            (toe, 0.4),
            (-0.88, 0.4),
        ]
    )
    pen.box(-0.94, 0.34, toe + 0.06, 0.54, "paper", round_by=0.1)
    pen.line([(-0.92, 0.5), (toe, 0.5)], 0.04, "dark")
    for k in range(4):
        x = -0.2 + 0.15 * k
        pen.line([(x - 0.06, -0.22 + 0.08 * k), (x + 0.1, -0.08 + 0.07 * k)], 0.05, "paper")
    pen.polygon([(-0.6, 0.3), (-0.1, 0.02), (0.1, 0.12), (-0.3, 0.3)], "accent")


def boot(pen: Pen) -> None:
    shaft, toe = pen.between(0.22, 0.32), pen.between(0.6, 0.8)
    pen.polygon(
        [
            (-0.55, -0.95),
            (-0.55 + 2 * shaft, -0.95),
            (0.0, 0.2),
            (0.4, 0.3),
            (toe, 0.55),
            (toe, 0.72),
            (-0.55, 0.72),
        ]
    )
    pen.ellipse(toe - 0.14, 0.58, 0.2, 0.15)
    pen.box(-0.57, 0.72, -0.2, 0.94, "ink")
    pen.box(-0.57, 0.7, toe + 0.06, 0.8, "ink", round_by=0.04)
    pen.line([(-0.55, -0.86), (-0.57 + 2 * shaft, -0.86)], 0.08, "dark")
    pen.line([(-0.5, 0.2), (0.0, 0.18)], 0.05, "accent")


def hat(pen: Pen) -> None:
    crown, brim = pen.between(0.38, 0.48), pen.between(0.85, 0.98)
    top = pen.between(-0.62, -0.45)
    pen.ellipse(0, 0.35, brim, pen.between(0.16, 0.26))
    pen.blob([(-crown, 0.3), (-crown + 0.06, top), (-0.12, top - 0.04), (0.0, top + 0.06), (0.12, top - 0.04),
              (crown - 0.06, top), (crown, 0.3), (0, 0.42)])  # fmt: skip
    pen.polygon([(-crown, 0.1), (crown, 0.1), (crown + 0.01, 0.32), (-crown - 0.01, 0.32)], "accent")
    pen.arc(0, 0.35, brim, 0.2, (0, 180), 0.03, "dark")


def glasses(pen: Pen) -> None:
    lens, height = pen.between(0.32, 0.38), pen.between(0.22, 0.33)
    for side in (-1, 1):
        if pen.chance(0.5):
            pen.ellipse(side * 0.45, 0, lens + 0.06, height + 0.06)
            pen.ellipse(side * 0.45, 0, lens - 0.03, height - 0.03, "glass")
        else:
            x = side * 0.45
            pen.box(x - lens - 0.06, -height, x + lens + 0.06, height, round_by=0.15)
            pen.box(x - lens + 0.03, -height + 0.08, x + lens - 0.03, height - 0.08, "glass", round_by=0.1)
        pen.line([(side * 0.84, -0.1), (side * 0.97, -0.2), (side * 0.98, 0.12)], 0.07, "main")
    pen.arc(0, 0.02, 0.14, 0.12, (200, 340), 0.07, "main")


def watch(pen: Pen) -> None:
    band, face = pen.between(0.19, 0.26), pen.between(0.36, 0.44)
    pen.polygon([(-band, -0.3), (-band * 0.8, -0.97), (band * 0.8, -0.97), (band, -0.3)])
    pen.polygon([(-band, 0.3), (-band * 0.8, 0.97), (band * 0.8, 0.97), (band, 0.3)])
    for k in range(4):
        pen.ellipse(0, 0.55 + 0.11 * k, 0.03, 0.03, "ink")
    pen.ellipse(0, 0, face, face, "metal")
    pen.ellipse(0, 0, face - 0.07, face - 0.07, "paper" if pen.chance(0.7) else "ink")
    pen.box(face - 0.02, -0.06, face + 0.08, 0.06, "metal")
    pen.line([(0, 0), (pen.between(-0.15, 0.15), -0.22)], 0.04, "accent")
    pen.line([(0, 0), (pen.between(0.1, 0.18), pen.between(-0.05, 0.1))], 0.05, "accent")


def handbag(pen: Pen) -> None:
    top, width = pen.between(-0.15, 0.0), pen.between(0.62, 0.8)
    pen.arc(0, top, pen.between(0.32, 0.42), pen.between(0.5, 0.75), (180, 360), 0.09, "dark")
    pen.polygon([(-width, top), (width, top), (width + 0.12, 0.75), (-width - 0.12, 0.75)])
    pen.polygon([(-width, top), (width, top), (width * 0.9, 0.3), (0, 0.4), (-width * 0.9, 0.3)], "dark")
    pen.box(-0.1, 0.26, 0.1, 0.46, "metal", round_by=0.04)


def backpack(pen: Pen) -> None:
    width = pen.between(0.5, 0.62)
    for side in (-1, 1):
        pen.arc(side * (width + 0.02), 0.05, 0.2, 0.6, (-90, 90 if side > 0 else -270), 0.1)
    pen.arc(0, -0.78, 0.16, 0.16, (180, 360), 0.07, "dark")
    pen.box(-width, -0.8, width, 0.88, round_by=0.4)
    pen.box(-width + 0.1, 0.1, width - 0.1, 0.78, "dark", round_by=0.15)
    pen.line([(-width + 0.14, 0.26), (width - 0.14, 0.26)], 0.04, "metal")
    pen.arc(0, -0.1, width - 0.08, 0.5, (180, 360), 0.04, "accent")
    pen.box(-0.14, -0.36, 0.14, -0.2, "accent", round_by=0.04)


def umbrella(pen: Pen) -> None:
    canopy, top = pen.between(0.82, 0.96), -0.7
    pen.line([(0, -0.92), (0, 0.75)], 0.05, "metal")
    pen.arc(0.14, 0.72, 0.14, 0.2, (180, 0), 0.08, "ink")
    edge = [(canopy * (1 - k / 4), -0.02) for k in range(9)]
    dome = [(-canopy, 0.0), (-canopy * 0.85, -0.35), (-canopy * 0.45, top + 0.08), (0, top - 0.05),
            (canopy * 0.45, top + 0.08), (canopy * 0.85, -0.35), (canopy, 0.0)]  # fmt: skip
    pen.polygon([*dome, *edge])
    for k in range(4):
        pen.ellipse(canopy * (-0.75 + 0.5 * k), 0.02, canopy * 0.25, 0.12, "hole")
    pen.line([(0, top), (0, 0.75)], 0.05, "metal")
    for side in (-0.5, 0, 0.5):
        pen.line([(0, top), (side * canopy, -0.08)], 0.025, "dark")
    pen.polygon([(0, top - 0.03), (0.02, -0.06), (0.48 * canopy, -0.06), (0.4 * canopy, -0.4)], "light")
