"""sRGB to CIELAB and back (D65), where distances are about what people see."""

import tensorflow as tf

# sRGB (linear) to XYZ divided by the white point D65, and the inverse. Source: IEC 61966-2-1.
_TO_XYZ = (
    (0.4124564 / 0.95047, 0.2126729, 0.0193339 / 1.08883),
    (0.3575761 / 0.95047, 0.7151522, 0.1191920 / 1.08883),
    (0.1804375 / 0.95047, 0.0721750, 0.9503041 / 1.08883),
)
_FROM_XYZ = (
    (3.2404542 * 0.95047, -0.9692660 * 0.95047, 0.0556434 * 0.95047),
    (-1.5371385, 1.8760108, -0.2040259),
    (-0.4985314 * 1.08883, 0.0415560 * 1.08883, 1.0572252 * 1.08883),
)
_BEND = 6 / 29  # CIE's cube root becomes a line below it


def rgb_to_lab(rgb: tf.Tensor) -> tf.Tensor:
    """Return CIELAB of sRGB.

    Args:
        rgb: float32, shape (..., 3), 0 to 255.

    Returns:
        float32, shape (..., 3): lightness L (0 to 100), a (green to red) and b (blue to yellow), both about
        -110 to 110.
    """
    scaled = rgb / 255.0
    linear = tf.where(
        scaled <= 0.04045, scaled / 12.92, tf.pow((tf.maximum(scaled, 0.04045) + 0.055) / 1.055, 2.4)
    )
    xyz = tf.tensordot(linear, tf.constant(_TO_XYZ, tf.float32), 1)
    root = tf.where(xyz > _BEND**3, tf.pow(tf.maximum(xyz, _BEND**3), 1 / 3), xyz / (3 * _BEND**2) + 4 / 29)
    x, y, z = tf.unstack(root, axis=-1)
    return tf.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def lab_to_rgb(lab: tf.Tensor) -> tf.Tensor:
    """Return sRGB of CIELAB, clipped to what sRGB can show.

    Args:
        lab: float32, shape (..., 3).

    Returns:
        float32, shape (..., 3), 0 to 255.
    """
    lightness, a, b = tf.unstack(lab, axis=-1)
    y = (lightness + 16) / 116
    root = tf.stack([y + a / 500, y, y - b / 200], axis=-1)
    xyz = tf.where(root > _BEND, root**3, 3 * _BEND**2 * (root - 4 / 29))
    linear = tf.clip_by_value(tf.tensordot(xyz, tf.constant(_FROM_XYZ, tf.float32), 1), 0.0, 1.0)
    scaled = tf.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * tf.pow(tf.maximum(linear, 0.0031308), 1 / 2.4) - 0.055
    )
    return 255.0 * scaled
