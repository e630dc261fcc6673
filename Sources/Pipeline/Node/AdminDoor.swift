import CLinux
import Pipeline

/// An admin socket that can't be opened.
package struct AdminSocketError: Error, Sendable, CustomStringConvertible {
    package let description: String
    package init(description: String) { self.description = description }
}

/// The admin interface of a node. The control loop waits for its descriptors and calls it each iteration; the node does
/// not know its commands.
///
/// Threading: the control thread.
package protocol AdminDoor: AnyObject {
    /// Opens it at `path`, taken over from a node that drains.
    /// - Parameter group: whose members may ask, but change nothing; nil: the owner alone.
    static func open(at path: String, group: String?) throws(AdminSocketError) -> any AdminDoor
    /// Whether a draining node answers at `path`, which would hand it over.
    static func isDraining(at path: String) -> Bool

    /// What to wait for.
    func waits(_ now: Instant) -> [cl_poll_item]
    /// When work is due without an event; nil: never.
    func nextDeadline(_ now: Instant) -> Instant?
    /// An answer is in progress: the next iteration is due at once.
    var isPreparing: Bool { get }
    /// Extends clients' timeouts by the time that the node was busy.
    func excuse(_ busy: TimeSpan)
    /// Handles events. `items` are those of ``waits(_:)``.
    func serve(_ items: ArraySlice<cl_poll_item>, _ now: Instant, _ node: RunningNode, _ manager: ServiceManager)
}
