import java.util.Arrays;
import java.util.concurrent.CountDownLatch;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.retry.RetryForever;

/** CuratorCandidate HOSTS latch|selector|mutex PATH COMMAND…: runs COMMAND while it leads PATH by that recipe of Curator's. It knows nothing of elect-run. */
class CuratorCandidate {
  static final int SESSION_MS = 10_000;
  static final int CONNECTING_MS = 5_000;
  static final int RETRY_MS = 100;

  public static void main(String[] args) throws Exception {
    var path = args[2];
    var command = new ProcessBuilder(Arrays.asList(args).subList(3, args.length)).inheritIO();
    try (var client = CuratorFrameworkFactory.newClient(args[0], SESSION_MS, CONNECTING_MS, new RetryForever(RETRY_MS))) {
      client.start();
      client.blockUntilConnected();
      System.out.println("waits");
      switch (args[1]) {
        case "latch" -> byLatch(client, path, command);
        case "selector" -> bySelector(client, path, command);
        case "mutex" -> byMutex(client, path, command);
        default -> throw new IllegalArgumentException(args[1]);
      }
    }
  }

  static void byLatch(CuratorFramework client, String path, ProcessBuilder command) throws Exception {
    try (var latch = new LeaderLatch(client, path, "a native candidate")) {
      latch.start();
      latch.await();
      command.start().waitFor();
    }
  }

  static void bySelector(CuratorFramework client, String path, ProcessBuilder command) throws Exception {
    var ended = new CountDownLatch(1);
    var listener = new LeaderSelectorListenerAdapter() {
      @Override
      public void takeLeadership(CuratorFramework leader) throws Exception {
        command.start().waitFor();
        ended.countDown();
      }
    };
    try (var selector = new LeaderSelector(client, path, listener)) {
      selector.setId("a native candidate");
      selector.start();
      ended.await();
    }
  }

  static void byMutex(CuratorFramework client, String path, ProcessBuilder command) throws Exception {
    var mutex = new InterProcessMutex(client, path);
    mutex.acquire();
    try {
      command.start().waitFor();
    } finally {
      mutex.release();
    }
  }
}
