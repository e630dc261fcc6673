import CLinux
import Pipeline
import PipelineRouting

/// Iterates over the routes of a table in batches.
package struct RouteWalk {
    package let table: RouteTableSnapshot
    private var part = 0

    package init(_ table: RouteTableSnapshot) { self.table = table }

    /// Continues until about that instant. True: all routes were visited.
    package mutating func advance(until end: Instant, _ body: (FoundRoute, RouteLabel) -> Void) -> Bool {
        while part < table.partCount {
            table.visit(part: part, body)
            part += 1
            // A part has about a hundred routes, each of which may be looked at for a text.
            if Instant(nanoseconds: cl_now()) >= end { return part == table.partCount }
        }
        return true
    }
}
