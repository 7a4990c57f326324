package org.example;

import io.grpc.EquivalentAddressGroup;
import io.grpc.NameResolver;
import io.grpc.NameResolverProvider;
import io.grpc.StatusOr;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.URI;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Set;

/**
 * {@code nodes:///HOST:PORT,HOST:PORT}: a list of nodes, which grpc-java has no name for. The channel connects to the first that
 * answers; when it goes, to the next one. Not needed where a name of DNS, or a service of Kubernetes, has all of them.
 */
final class Nodes extends NameResolverProvider {
  @Override
  public NameResolver newNameResolver(URI target, NameResolver.Args args) {
    if (!target.getScheme().equals(getDefaultScheme())) {
      return null;
    }
    List<EquivalentAddressGroup> nodes =
        Arrays.stream(target.getPath().substring(1).split(",")).map(Nodes::group).toList();
    return new NameResolver() {
      @Override
      public String getServiceAuthority() {
        return "raftqueue";
      }

      @Override
      public void start(Listener2 listener) {
        listener.onResult(ResolutionResult.newBuilder().setAddressesOrError(StatusOr.fromValue(nodes)).build());
      }

      @Override
      public void shutdown() {}
    };
  }

  private static EquivalentAddressGroup group(String node) {
    int colon = node.lastIndexOf(':');
    int port = Integer.parseInt(node.substring(colon + 1));
    return new EquivalentAddressGroup(new InetSocketAddress(node.substring(0, colon), port));
  }

  @Override
  public Collection<Class<? extends SocketAddress>> getProducedSocketAddressTypes() {
    return Set.of(InetSocketAddress.class);
  }

  @Override
  public String getDefaultScheme() {
    return "nodes";
  }

  @Override
  protected boolean isAvailable() {
    return true;
  }

  @Override
  protected int priority() {
    return 5;
  }
}
