"""The processes behind `virnucpro predict`: a driver, its workers and the runs that they execute."""
