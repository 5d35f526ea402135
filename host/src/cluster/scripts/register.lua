-- Registers a node under a number that no other has. Returns the number, the run, the secret, and whether the run began with it.
-- KEYS: nodes, beats, run, number, secret. ARGV: the node's name with a random text that tells it from others, a random text
-- for a cluster that begins, a random number to begin to count at, the channel of news, a secret for a cluster without one.
local run = redis.call('GET', KEYS[3])
local began = 0
if not run then
  run = ARGV[2]
  began = 1
  redis.call('SET', KEYS[3], run)
end
redis.call('SETNX', KEYS[4], ARGV[3])
local number
repeat
  number = redis.call('INCR', KEYS[4]) % 4095 + 1
until redis.call('HEXISTS', KEYS[1], number) == 0
redis.call('HSET', KEYS[1], number, ARGV[1])
redis.call('HSET', KEYS[2], number, 1)
redis.call('SETNX', KEYS[5], ARGV[5])
redis.call('PUBLISH', ARGV[4], 'came')
return {number, run, redis.call('GET', KEYS[5]), began}
