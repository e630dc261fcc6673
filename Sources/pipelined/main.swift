import FilterCatalog
import PipelinedCommand

PipelinedCommand.main(filters: .standard)
