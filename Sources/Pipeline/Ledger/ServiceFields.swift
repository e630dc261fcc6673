import PipelineText

extension JSONLine {
    /// A number and a protocol; null where they were aggregated.
    package mutating func fields(_ service: ReportService?) {
        let known = service.flatMap { $0.isRest ? nil : $0 }
        field("port", known?.port.map { Int($0) })
        field("protocol", known?.protocolName)
        field("icmp_type", known?.icmpType)
    }
}
