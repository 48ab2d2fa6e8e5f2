/// How long a guest may keep what it knows of a shared file.
public enum ShareCaching: String, Hashable, Sendable, CaseIterable {
    /// Not at all: every look goes to the host, and data past the guest's page cache. Files cannot be mapped shared.
    case none
    /// Names and attributes for a second; data while the file has not changed.
    case auto
    /// Everything for a day: for directories that nobody else changes.
    case always
}

/// Whose files the guest sees.
public enum ShareOwnership: String, Hashable, Sendable, CaseIterable {
    /// What the user who runs the machine owns, and what the host's root owns, is the guest's root's. Others are as they are.
    case userIsRoot
    /// As on the host.
    case same
}

/// What a shared directory is like, beside where it is.
public struct ShareOptions: Sendable {
    public var caching = ShareCaching.auto
    public var ownership = ShareOwnership.userIsRoot
    /// `user.*` extended attributes.
    public var hasExtendedAttributes = true
    /// Whether POSIX record locks of the guest are the host's: seen by host programs and other guests. Else they are the
    /// guest's own.
    public var sharesLocks = false
    /// Request queues, 1 to 8.
    public var queueCount = 1
    /// Descriptors of each queue; a power of two up to 1024. A transfer of 1 MiB needs 260.
    public var queueSize: UInt16 = 512
    /// The most threads for calls that block.
    public var threads = 4
    /// Descriptors that the guest can make the host hold, open files among them; nil for what the process may have, less some.
    public var descriptorLimit: Int?
    /// Files that the guest may know at once, about 300 bytes of memory each; nil for one for each KiB of the guest's own memory,
    /// of which its kernel needs more than that to know one.
    public var inodeLimit: Int?
    /// How long a reset waits for what the host still has, in milliseconds.
    public var resetLimit: UInt64 = 5000

    public init() {}
}
