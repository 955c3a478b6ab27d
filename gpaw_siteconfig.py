"""How GPAW is built from PyPI on Debian (GPAW_CONFIG): serial, for three atoms keep one process busy."""

mpi = False
compiler = "g++"
fftw = True
libraries = ["xc", "openblas", "fftw3"]
