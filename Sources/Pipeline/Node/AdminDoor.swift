import CLinux
import Pipeline

/// An admin socket that can't be opened.
package struct AdminSocketError: Error, Sendable, CustomStringConvertible {
    package let description: String
    package init(description: String) { self.description = description }
}

/// Where operators reach a node. The control loop waits for its descriptors beside its own and has it serve a turn; what may be
/// asked there is nothing to the node.
///
/// Threading: the control thread.
package protocol AdminDoor: AnyObject {
    /// Opens it at `path`, taken over from a node that drains.
    static func open(at path: String) throws(AdminSocketError) -> any AdminDoor
    /// Whether a node answers at `path` that would hand it over: it drains.
    static func isDraining(at path: String) -> Bool

    /// What to wait for.
    func waits(_ now: Instant) -> [cl_poll_item]
    /// When something is to be done if nothing comes; nil: never.
    func nextDeadline(_ now: Instant) -> Instant?
    /// An answer is being made: the next turn is due at once.
    var isPreparing: Bool { get }
    /// The node did something else for so long: that is no client's fault.
    func excuse(_ busy: TimeSpan)
    /// Serves what has come. `items` are those of ``waits(_:)``.
    func serve(_ items: ArraySlice<cl_poll_item>, _ now: Instant, _ node: RunningNode, _ manager: ServiceManager)
}
