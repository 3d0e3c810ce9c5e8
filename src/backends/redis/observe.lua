-- KEYS: lock, token.
-- Who holds the lock (false: nobody), its pttl, and the last token: the holder's, if that is an elect-run.
return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1]), redis.call('GET', KEYS[2])}
