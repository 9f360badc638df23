# SPDX-License-Identifier: GPL-3.0-or-later

"""How DemoCam's own datasets become files: FITS for images, PNG for quick looks."""

from __future__ import annotations

__all__ = ["DemoImageFormatter", "PngFormatter", "to_fits"]

import io
from typing import Any

from lsst.daf.butler import FormatterV2

from .image import DemoImage

# Cards that describe the file rather than the observation; astropy writes them anew.
_STRUCTURAL = {"SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "EXTEND", "BZERO", "BSCALE", "COMMENT", ""}

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def to_fits(image: DemoImage) -> bytes:
    """Encode an image as a FITS file.

    Parameters
    ----------
    image : `DemoImage`
        Pixels become the primary HDU, the header its cards.

    Returns
    -------
    content : `bytes`
        The whole file; the same for the same image.
    """
    # Not at module level: only quanta that touch pixels should pay for it.
    from astropy.io import fits

    hdu = fits.PrimaryHDU(image.array)
    for key, value in image.header.items():
        hdu.header[key] = value
    buffer = io.BytesIO()
    hdu.writeto(buffer)
    return buffer.getvalue()


class DemoImageFormatter(FormatterV2):
    """Read and write a `DemoImage` as the primary HDU of a FITS file."""

    default_extension = ".fits"
    can_read_from_local_file = True

    def read_from_local_file(
        self, path: str, component: str | None = None, expected_size: int = -1
    ) -> DemoImage:
        from astropy.io import fits

        with fits.open(path, memmap=False) as hdus:
            hdu = hdus[0]
            header = {key: value for key, value in hdu.header.items() if key not in _STRUCTURAL}
            # FITS is big-endian; native byte order is faster and is what arrays had before they were written.
            array = hdu.data.astype(hdu.data.dtype.newbyteorder("="), copy=False)
        return DemoImage(array=array, header=header)

    def to_bytes(self, in_memory_dataset: Any) -> bytes:
        return to_fits(in_memory_dataset)


class PngFormatter(FormatterV2):
    """Read and write a PNG that is already encoded, as `bytes`."""

    default_extension = ".png"
    can_read_from_local_file = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> bytes:
        with open(path, "rb") as stream:
            return stream.read()

    def to_bytes(self, in_memory_dataset: Any) -> bytes:
        if not in_memory_dataset.startswith(_PNG_SIGNATURE):
            raise ValueError(f"{self.dataset_ref} is not a PNG image.")
        return in_memory_dataset
