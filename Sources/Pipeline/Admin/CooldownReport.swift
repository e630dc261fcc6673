import Pipeline
import PipelineRouting
import PipelineText

/// What `status` says of addresses that are not served yet, since they were another env's (R31).
struct CooldownReport {
    /// So many are named; the rest are counted.
    private static let shown = 20

    private let cooling: [CoolingAddress]
    private let count: Int
    private let remembered: (count: Int, forgotten: UInt64)

    init(_ routing: RoutingState) {
        (cooling, count) = routing.cooling(CooldownReport.shown)
        remembered = routing.rememberedAddresses
    }

    var problems: [String] {
        var texts = cooling.map { one in
            "\(one.address) was \(one.last)'s, and is not served for \(one.waits) for another "
                + "\(plainDuration(one.left.nanoseconds / 1_000_000_000 + 1)) (`cooldown`)"
        }
        if count > cooling.count { texts.append("\(count - cooling.count) more addresses wait for their cooldown") }
        if remembered.forgotten > 0 {
            texts.append(
                "\(remembered.forgotten) addresses were lost by envs and forgotten before their cooldown was over, since "
                    + "there were more than \(RoutingState.rememberedAddressLimit): shorten `cooldown`")
        }
        return texts
    }

    func write(_ line: inout JSONLine) {
        line.key("cooldown")
        line.open()
        line.field("remembered", remembered.count)
        line.field("forgotten", remembered.forgotten)
        line.field("waiting", count)
        line.list("addresses", cooling) { line, one in
            line.open()
            line.field("address", one.address.description)
            line.field("last_owner", one.last)
            line.field("owner", one.waits)
            line.field("left_s", one.left.nanoseconds / 1_000_000_000)
            line.close()
        }
        line.close()
    }
}
