"""The network that finds membrane and protein pixels in a slice (paper, Section 3)."""

from jaxmem.unet.model import UNet as UNet
from jaxmem.unet.model import UNetConfig as UNetConfig
from jaxmem.unet.model import dice_per_class as dice_per_class
from jaxmem.unet.model import segmentation_loss as segmentation_loss
from jaxmem.unet.predict import Predictor as Predictor
from jaxmem.unet.train import TrainConfig as TrainConfig
from jaxmem.unet.train import train as train
from jaxmem.unet.weights import default_weights as default_weights
from jaxmem.unet.weights import load_weights as load_weights
from jaxmem.unet.weights import save_weights as save_weights
