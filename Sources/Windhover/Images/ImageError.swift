/// Why an image could not be found, fetched or kept.
public enum ImageError: ReportableError, Hashable {
    /// There is no image of this name.
    case unknown(String)
    /// Neither XDG_CACHE_HOME nor HOME says where to keep images.
    case noCacheDirectory
    /// The host lacks a program that fetching needs.
    case hostLacks(program: String)
    /// The package manager could not get something, with its own words.
    case packagesUnavailable(what: String, reason: String)
    /// What came is not what was announced.
    case damaged(String)
    /// A file of the cache could not be made, read or removed.
    case cache(String)
    /// Ctrl-C.
    case interrupted

    public var exitStatus: ExitStatus {
        switch self {
        case .unknown: .noSuchFile
        case .noCacheDirectory, .hostLacks, .packagesUnavailable, .cache, .interrupted: .unavailable
        case .damaged: .badConfiguration
        }
    }

    public var description: String {
        let otherwise = "or boot a kernel of your own with --kernel FILE"
        switch self {
        case .unknown(let name):
            return "there is no image named '\(name)'; the one there is: linux"
        case .noCacheDirectory:
            return "no place to keep images: set XDG_CACHE_HOME or HOME"
        case .hostLacks(let program):
            return
                "the linux image comes from Debian's package manager, and this host has no \(program): "
                + "use a Debian host, \(otherwise)"
        case .packagesUnavailable(let what, let reason):
            return
                "\(what) could not be fetched: \(reason); see that this host reaches its package sources, \(otherwise)"
        case .damaged(let what):
            return "\(what): fetch it again with hover images fetch linux --update"
        case .cache(let what):
            return what
        case .interrupted:
            return "interrupted; nothing was kept"
        }
    }
}
