"""The network that finds membrane and protein pixels in a slice (paper, Section 3).

`init` or `fit` makes parameters, `evaluate` and `probabilities` use them on one image; `load_weights` reads a `UNet`, whose
parameters are `network_of(model)`, and `Predictor` looks at slices of any size.
"""

from jaxmem.unet.functional import FitInfo as FitInfo
from jaxmem.unet.functional import Network as Network
from jaxmem.unet.functional import NetworkFit as NetworkFit
from jaxmem.unet.functional import evaluate as evaluate
from jaxmem.unet.functional import fit as fit
from jaxmem.unet.functional import init as init
from jaxmem.unet.functional import network_of as network_of
from jaxmem.unet.functional import probabilities as probabilities
from jaxmem.unet.model import UNet as UNet
from jaxmem.unet.model import UNetConfig as UNetConfig
from jaxmem.unet.model import dice_per_class as dice_per_class
from jaxmem.unet.model import segmentation_loss as segmentation_loss
from jaxmem.unet.predict import Predictor as Predictor
from jaxmem.unet.stacks import interpolation as interpolation
from jaxmem.unet.stacks import offsets as offsets
from jaxmem.unet.train import TrainConfig as TrainConfig
from jaxmem.unet.train import train as train
from jaxmem.unet.weights import default_weights as default_weights
from jaxmem.unet.weights import load_weights as load_weights
from jaxmem.unet.weights import save_weights as save_weights
