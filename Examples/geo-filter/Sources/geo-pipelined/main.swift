import FilterCatalog
import GeoFilter
import PipelinedCommand

PipelinedCommand.main(filters: .standard + [GeoFilter.self])
