/// What the host offers the guest at a port, in this process.
///
/// It is called with the host's end of each connection that the guest makes: a stream socket that blocks, which is the service's
/// from then on, to be closed by it. What the guest sent is there to be read up to its end, whether or not there still is a guest;
/// the end comes when the guest shuts its side down, resets the connection, or is no more. A write after that is EPIPE, with SIGPIPE
/// unless that is suppressed. A service that closes its end without having read everything resets nothing: the guest sees the end.
///
/// Called on the event loop's thread, or one of the guest's processors: it must not block, and hands the descriptor to whoever may.
public typealias SocketService = @Sendable (_ descriptor: Int32) -> Void
